//! Signatures at the end of modules (Documentation/admin-guide/module-signing.rst).

/// What a signed module ends with.
const MARK: &[u8] = b"~Module signature appended~\n";

/// `struct module_signature` (include/linux/module_signature.h), which precedes the mark; its last four bytes are the
/// length of the signature before it, in big-endian order.
const DESCRIPTION: usize = 12;

/// The module without its signature.
///
/// The modules come from the same package as the kernel, and their integrity is that of the host's files: the kernel
/// takes them unsigned. To hash them and to read their signatures is four fifths of the time that loading takes.
pub(super) fn without(module: &[u8]) -> &[u8] {
    strip(module).unwrap_or(module)
}

fn strip(module: &[u8]) -> Option<&[u8]> {
    let described = module.strip_suffix(MARK)?;
    let (_, length) = described.split_last_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let rest = described
        .len()
        .checked_sub(DESCRIPTION)?
        .checked_sub(length)?;
    described.get(..rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(length: u32) -> Vec<u8> {
        let mut module = b"module".to_vec();
        module.extend_from_slice(&[7; 100]);
        module.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0]);
        module.extend_from_slice(&length.to_be_bytes());
        module.extend_from_slice(MARK);
        module
    }

    #[test]
    fn a_signed_module_loses_its_signature_and_nothing_else() {
        assert_eq!(without(&signed(100)), b"module");
        assert_eq!(without(b"module"), b"module");
    }

    #[test]
    fn what_only_looks_like_a_signature_stays() {
        for damaged in [
            signed(107),
            signed(u32::MAX),
            MARK.to_vec(),
            [&[0; 5], MARK].concat(),
        ] {
            assert_eq!(without(&damaged), damaged);
        }
    }
}
