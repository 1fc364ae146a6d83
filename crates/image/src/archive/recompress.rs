//! A stream into a blob with gzip, which every reader of images knows: for what Bulkhead makes itself, and for layers in
//! formats that no media type exists for.

use std::io::{self, BufRead, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::recipe::RecipeLayer;
use crate::decompress::{Decoder, Format};
use crate::layer::Limits;
use crate::store::{Store, StoreError};

const BUFFER: usize = 256 << 10;

/// A failure of one of both ends.
pub(crate) enum CopyError {
    /// The stream.
    Read(io::Error),
    /// The store.
    Store(StoreError),
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Compresses a stream into a blob: lightly, because it is made on this host and mostly stays. More than a layer's
/// bound is refused.
pub(crate) fn gzip_to_blob(
    store: &Store,
    mut input: impl Read,
    advance: &dyn Fn(u64),
) -> Result<RecipeLayer, CopyError> {
    let most = Limits::default().max_bytes;
    let mut encoder = GzEncoder::new(store.blob_writer()?, Compression::fast());
    let mut buffer = vec![0; BUFFER];
    let mut total: u64 = 0;
    let written = |source| StoreError::Io {
        operation: "write a blob in",
        path: store.temp_root(),
        source,
    };
    loop {
        let n = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(CopyError::Read(source)),
        };
        let count = u64::try_from(n).unwrap_or(u64::MAX);
        total = total.saturating_add(count);
        if total > most {
            let text = format!("it is longer than {most} bytes when it is unpacked");
            return Err(CopyError::Read(io::Error::new(
                io::ErrorKind::FileTooLarge,
                text,
            )));
        }
        encoder
            .write_all(buffer.get(..n).unwrap_or_default())
            .map_err(written)?;
        advance(count);
    }
    let (digest, size) = encoder.finish().map_err(written)?.commit(None)?;
    Ok(RecipeLayer { digest, size })
}

/// What to do with a layer whose bytes come from `input`: its uncompressed stream, where its own format is one that
/// other engines do not read in a layer (xz, bzip2); `None` where it can stay as it is.
pub(crate) fn foreign<R: BufRead>(input: &mut R) -> io::Result<Option<Decoder<'static, &mut R>>> {
    match Format::of(input.fill_buf()?) {
        Format::Xz | Format::Bzip2 => Decoder::new(input).map(Some),
        Format::Plain | Format::Gzip | Format::Zstd => Ok(None),
    }
}
