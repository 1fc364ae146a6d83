//! Manifests, indexes and configurations from a registry: no input may panic, and what is accepted
//! must hold what the rest of the store relies on.

#![no_main]

use bulkhead_image::{Document, Platform, diff_ids, digests_searched, parse_config, parse_manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], Option<&str>)| {
    let (bytes, content_type) = input;
    match parse_manifest(bytes, content_type) {
        Ok(Document::Manifest(manifest)) => {
            for descriptor in manifest.layers().iter().chain([manifest.config()]) {
                let digest = descriptor.digest().as_ref();
                assert!(digest.parse::<bulkhead_types::Digest>().is_ok(), "{digest}");
            }
        }
        Ok(Document::Index(index)) => {
            // However indexes nest, a search reads a bounded number of documents.
            let read = digests_searched(&index, &Platform::host());
            assert!(read.len() <= 64, "{} documents", read.len());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(config) = parse_config(bytes) {
        assert!(diff_ids(&config).is_ok());
    }
    // References come from the same strangers: what parses must read back.
    if let Some(reference) =
        content_type.and_then(|text| text.parse::<bulkhead_image::Reference>().ok())
    {
        assert_eq!(reference.familiar().parse(), Ok(reference.clone()));
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
});
