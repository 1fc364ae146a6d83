//! `import`: a root file system becomes an image of one layer.

use std::io::{BufReader, Read};

use super::change::Change;
use super::error::ArchiveError;
use super::recipe::{Recipe, RecipeLayer};
use super::recompress::{self, gzip_to_blob};
use super::source::{Item, copy_to_blob};
use crate::platform::Platform;
use crate::progress::{Phase, Progress};
use crate::reference::Reference;
use crate::store::{Image, Store};

const BUFFER: usize = 256 << 10;

/// How an imported image is to be.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Its name; without one it is found by its identifier.
    pub reference: Option<Reference>,
    /// Changes to its empty configuration.
    pub changes: Vec<Change>,
    /// The remark in its history.
    pub message: Option<String>,
    /// What it runs on; by default this host.
    pub platform: Option<Platform>,
}

/// Makes an image of a root file system in a tar stream, plain or compressed. The stream is kept as
/// it is, because compressing it is the caller's choice, unless its format is none for layers (xz, bzip2):
/// then it becomes gzip, as in Docker.
///
/// # Errors
/// [`ArchiveError`]; nothing is left then.
pub fn import(
    store: &Store,
    input: &mut dyn Read,
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<Image, ArchiveError> {
    let result = {
        let _content = store.using_content()?;
        import_with(store, input, options, progress)
    };
    if result.is_err() {
        store.tidy();
    } else {
        store.tidy_if_due();
    }
    result
}

fn import_with(
    store: &Store,
    input: &mut dyn Read,
    options: &ImportOptions,
    progress: &dyn Progress,
) -> Result<Image, ArchiveError> {
    const ITEM: &str = "rootfs";
    progress.start(ITEM, Phase::Loading, None);
    let mut input = BufReader::with_capacity(BUFFER, input);
    let advance = |n| progress.advance(ITEM, n);
    let foreign =
        recompress::foreign(&mut input).map_err(|source| ArchiveError::Read { source })?;
    let layer = match foreign {
        Some(decoder) => gzip_to_blob(store, decoder, &advance)?,
        None => match copy_to_blob(store, &mut input, 0, &advance)? {
            Item::Blob { digest, size } if size > 0 => RecipeLayer { digest, size },
            _ => return Err(ArchiveError::Empty),
        },
    };
    progress.finish(ITEM, crate::progress::Outcome::Done);
    let diff_id = store.add_layer(&layer.digest, progress)?;
    let recipe = Recipe {
        layer,
        diff_id,
        changes: options.changes.clone(),
        platform: options.platform.clone().unwrap_or_else(Platform::host),
        created_by: String::new(),
        comment: options
            .message
            .clone()
            .unwrap_or_else(|| "Imported from -".into()),
    };
    Ok(recipe.make(store, options.reference.as_ref())?)
}
