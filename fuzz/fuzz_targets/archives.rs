//! Archives made from a fuzzer's bytes: well-formed on the outside, strange in what they say.

/// Takes numbers and names out of the fuzzer's bytes; zeros when they run out.
pub struct Source<'a>(pub &'a [u8]);

impl Source<'_> {
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    fn number(&mut self) -> u64 {
        u64::from(self.byte()) | u64::from(self.byte()) << 8
    }

    /// A path of few names, so that entries meet; now and then a whiteout, a long name, or one that must be refused.
    fn path(&mut self) -> Vec<u8> {
        let mut path = Vec::new();
        let shape = self.byte();
        for level in 0..=shape % 4 {
            if level > 0 {
                path.push(b'/');
            }
            match self.byte() % 16 {
                0 if shape > 250 => path.extend_from_slice(b".."),
                1 => path.extend_from_slice(b".wh.a"),
                2 => path.extend_from_slice(b".wh..wh..opq"),
                3 => path.extend_from_slice(&vec![b'l'; 50 + usize::from(shape)]),
                4 => path.push(b'.'),
                number => path.push(b'a' + number % 6),
            }
        }
        path
    }
}

/// The contents of file number `serial`: every byte says which file and where in it, except in some runs of zeros.
pub fn content(serial: u32, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| byte(serial, at)).collect();
    for (at, byte) in serial.to_le_bytes().into_iter().enumerate() {
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    }
    bytes
}

fn byte(serial: u32, at: usize) -> u8 {
    if (at >> 14).wrapping_add(serial as usize) % 3 == 0 {
        return 0;
    }
    (at as u32 / 512).wrapping_mul(31).wrapping_add(serial) as u8
}

/// An archive of some entries, and how many files the archives so far have.
pub fn archive(source: &mut Source<'_>, serial: &mut u32) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..source.byte() % 24 {
        let kind = *b"0000011255346"
            .get(usize::from(source.byte() % 13))
            .unwrap_or(&b'0');
        let path = source.path();
        let link = source.path();
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = vec![(b"path".to_vec(), path)];
        if matches!(kind, b'1' | b'2') {
            records.push((b"linkpath".to_vec(), link));
        }
        let extra = source.byte();
        if extra & 1 != 0 {
            let value = vec![b'v'; source.number() as usize % 3000];
            records.push((b"SCHILY.xattr.user.a".to_vec(), value));
        }
        if extra & 2 != 0 {
            records.push((b"SCHILY.xattr.security.capability".to_vec(), vec![1; 20]));
        }
        if extra & 4 != 0 {
            records.push((
                b"uid".to_vec(),
                (source.number() << 16).to_string().into_bytes(),
            ));
        }
        if extra & 8 != 0 {
            let time = format!("{}.{}", source.number(), source.number());
            records.push((b"mtime".to_vec(), time.into_bytes()));
        }
        let size = match kind {
            b'0' if extra & 16 != 0 => source.number() as usize * 8,
            b'0' => usize::from(source.byte()),
            _ => 0,
        };
        let mut content = content(*serial, size);
        *serial += 1;
        if kind == b'0' && extra & 32 != 0 {
            // Sparse: the same file, without what a hole may stand for.
            let cut = content.len().min(4096);
            records.push((
                b"GNU.sparse.realsize".to_vec(),
                content.len().to_string().into_bytes(),
            ));
            let tail = content.len() - cut;
            records.push((
                b"GNU.sparse.map".to_vec(),
                format!("0,{cut},{cut},{tail}").into_bytes(),
            ));
        }
        let mut pax = Vec::new();
        for (key, value) in &records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length += 1;
            }
            pax.extend_from_slice(length.to_string().as_bytes());
            pax.push(b' ');
            pax.extend_from_slice(key);
            pax.push(b'=');
            pax.extend_from_slice(value);
            pax.push(b'\n');
        }
        entry(&mut out, b'x', &mut pax);
        entry(&mut out, kind, &mut content);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn entry(out: &mut Vec<u8>, kind: u8, content: &mut Vec<u8>) {
    let mut header = [0u8; 512];
    header[0] = b'n';
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000001");
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    sign(&mut header);
    out.extend_from_slice(&header);
    out.append(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// Makes a header's checksum right.
pub fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
