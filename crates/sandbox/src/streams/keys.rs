//! Finding the detach keys in what is typed. Keys that turn out not to be the whole sequence are
//! passed on, late but complete.

#[derive(Debug)]
pub(super) struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    pub fn new(sequence: Vec<u8>) -> Self {
        Self {
            sequence,
            matched: 0,
        }
    }

    /// Appends to `out` what of `typed` goes to the process; `true` when the sequence is complete.
    pub fn filter(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        if self.sequence.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for byte in typed {
            if self.sequence.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return true;
                }
                continue;
            }
            out.extend_from_slice(self.sequence.get(..self.matched).unwrap_or_default());
            self.matched = usize::from(self.sequence.first() == Some(byte));
            if self.matched == 0 {
                out.push(*byte);
            } else if self.sequence.len() == 1 {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_detaches_and_pieces_of_it_are_typed_through() {
        let mut keys = DetachKeys::new(vec![16, 17]);
        let mut out = Vec::new();
        assert!(!keys.filter(b"a\x10b\x10", &mut out));
        assert_eq!(out, b"a\x10b");
        assert!(!keys.filter(b"\x10", &mut out));
        assert_eq!(out, b"a\x10b\x10");
        assert!(keys.filter(b"\x11rest", &mut out));
        assert_eq!(out, b"a\x10b\x10");
        let mut none = DetachKeys::new(Vec::new());
        out.clear();
        assert!(!none.filter(&[16, 17], &mut out));
        assert_eq!(out, [16, 17]);
    }
}
