//! Images made in memory.

use std::io::Write;

use bulkhead_types::Digest;
use sha2::{Digest as _, Sha256};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// Bytes that do not compress, different per seed.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// A tar archive of regular files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A complete image: documents and (compressed) layers.
#[derive(Clone)]
pub struct Fixture {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Fixture {
    /// One layer per tar, compressed with gzip, zstd and not at all in turn.
    pub fn new(tars: &[Vec<u8>]) -> Self {
        Self::with_platform(tars, "amd64")
    }

    pub fn with_platform(tars: &[Vec<u8>], architecture: &str) -> Self {
        let kinds = ["+gzip", "+zstd", ""];
        let layers: Vec<Vec<u8>> = tars
            .iter()
            .enumerate()
            .map(|(n, tar)| match kinds[n % 3] {
                "+gzip" => gzip(tar),
                "+zstd" => zstd(tar),
                _ => tar.clone(),
            })
            .collect();
        let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar).to_string()).collect();
        let types: Vec<String> = (0..tars.len())
            .map(|n| format!("application/vnd.oci.image.layer.v1.tar{}", kinds[n % 3]))
            .collect();
        Self::assemble(layers, &diff_ids, &types, architecture)
    }

    pub fn assemble(
        layers: Vec<Vec<u8>>,
        diff_ids: &[String],
        types: &[String],
        architecture: &str,
    ) -> Self {
        let config = serde_json::to_vec(&serde_json::json!({
            "created": "2024-01-02T03:04:05Z",
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/hello"], "Env": ["PATH=/bin"], "OnBuild": null},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| serde_json::json!({"created_by": "a test"})).collect::<Vec<_>>(),
        }))
        .unwrap();
        let descriptors: Vec<_> = layers
            .iter()
            .zip(types)
            .map(|(layer, kind)| {
                serde_json::json!({"mediaType": kind, "digest": digest(layer).to_string(), "size": layer.len()})
            })
            .collect();
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config).to_string(),
                "size": config.len(),
            },
            "layers": descriptors,
        }))
        .unwrap();
        Self {
            manifest,
            config,
            layers,
        }
    }

    /// Three layers: a small one, one that takes several packets, one that hides a file.
    pub fn sample(seed: u64) -> Self {
        Self::new(&[
            tar(&[
                ("hello", b"hi\n"),
                ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
            ]),
            tar(&[("big", &noise(600_000, seed))]),
            tar(&[
                ("etc/.wh.passwd", b""),
                ("seed", seed.to_string().as_bytes()),
            ]),
        ])
    }

    /// Two layers with gzip, which every format knows.
    pub fn gzipped(seed: u64) -> Self {
        let tars = [
            tar(&[("hello", b"hi\n")]),
            tar(&[("big", &noise(2 << 20, seed))]),
        ];
        let diff_ids: Vec<String> = tars.iter().map(|tar| digest(tar).to_string()).collect();
        let kind = "application/vnd.oci.image.layer.v1.tar+gzip".to_owned();
        Self::assemble(
            tars.iter().map(|tar| gzip(tar)).collect(),
            &diff_ids,
            &[kind.clone(), kind],
            "amd64",
        )
    }

    pub fn id(&self) -> Digest {
        digest(&self.config)
    }

    /// Content by digest.
    pub fn blob(&self, wanted: &str) -> Option<&[u8]> {
        let all = self.layers.iter().chain([&self.config, &self.manifest]);
        all.map(Vec::as_slice)
            .find(|bytes| digest(bytes).to_string() == wanted)
    }

    /// An OCI layout in a directory, as skopeo would make it.
    pub fn write_layout(&self, dir: &std::path::Path, name: &str) {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for bytes in self.layers.iter().chain([&self.config, &self.manifest]) {
            std::fs::write(blobs.join(digest(bytes).hex()), bytes).unwrap();
        }
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": OCI_MANIFEST,
            "digest": digest(&self.manifest).to_string(),
            "size": self.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }]});
        std::fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        std::fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}
