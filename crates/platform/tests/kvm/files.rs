//! Kernel files that are none.

use bulkhead_platform::{FileError, KvmError, PlatformError};

use crate::code::Code;
use crate::rig::{Files, can_make_machines};

type Judge = fn(&FileError) -> bool;

fn refusal(kernel: &[u8]) -> Option<FileError> {
    if !can_make_machines() {
        return None;
    }
    match Files::new(kernel).plan().start().err() {
        Some(PlatformError::Kvm(KvmError::Kernel(error))) => Some(error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_file_that_is_no_kernel_is_refused_for_its_reason() {
    let whole = Code::default().say("a").spin().kernel();
    let mut arm = whole.clone();
    arm[18] = 183;
    let cases: [(&[u8], Judge); 6] = [
        (b"", |error| matches!(error, FileError::Empty)),
        (b"#!/bin/sh\nexit\n", |error| {
            matches!(error, FileError::NoKernel)
        }),
        (&whole[..whole.len() - 1], |error| {
            matches!(error, FileError::Truncated { .. })
        }),
        (&whole[..80], |error| matches!(error, FileError::Damaged)),
        (&arm, |error| {
            matches!(error, FileError::Architecture("64-bit ARM"))
        }),
        (&Code::default().spin().program(), |error| {
            matches!(error, FileError::Program)
        }),
    ];
    for (index, (kernel, expected)) in cases.into_iter().enumerate() {
        if let Some(error) = refusal(kernel) {
            assert!(expected(&error), "case {index}: {error}");
        }
    }
}

#[test]
fn a_stock_kernel_that_was_cut_is_refused() {
    let newest = std::fs::read_dir("/boot").ok().and_then(|entries| {
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
    });
    let Some(kernel) = newest.and_then(|path| std::fs::read(path).ok()) else {
        bulkhead_harness::cannot_run!("no stock kernel can be read in /boot");
        return;
    };
    if let Some(error) = refusal(&kernel[..kernel.len() / 2]) {
        assert!(matches!(error, FileError::Truncated { .. }), "{error}");
    }
}
