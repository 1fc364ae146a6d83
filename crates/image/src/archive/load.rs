//! `load`: whatever kind of archive it is, which its content tells.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bulkhead_types::{Digest, GuestText};

use super::error::{ArchiveError, io_error};
use super::source::{Source, is_layout};
use super::{docker, layout};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{Image, Store};

/// Where an archive comes from.
pub enum LoadFrom<'a> {
    /// An archive file, or the directory of an OCI image layout.
    Path(&'a Path),
    /// A stream, for example standard input.
    Reader(&'a mut dyn Read),
}

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The platform to choose where an archive has several; by default this host's.
    pub platform: Option<Platform>,
}

/// What becomes of an entry of an archive, in the archive's order.
#[derive(Debug)]
pub enum LoadEvent<'a> {
    /// A name moves to the image that is loaded next; the one that had it stays without.
    Renamed {
        /// The name.
        name: &'a Reference,
        /// The identifier of the image that had it.
        old: &'a Digest,
    },
    /// An image is in the store.
    Loaded {
        /// The image.
        image: &'a Image,
        /// The names that the archive gave it; it may have others.
        names: &'a [Reference],
    },
    /// An entry is no image, or for another platform; the others are loaded all the same.
    Skipped {
        /// Its name or digest, as the archive has it, without what disturbs a terminal.
        what: &'a str,
        /// Why.
        why: &'a ArchiveError,
    },
    /// An entry is damaged or refused; the others are loaded all the same, and the load fails in the end.
    Failed {
        /// Its name or digest, as the archive has it, without what disturbs a terminal.
        what: &'a str,
        /// Why.
        why: &'a ArchiveError,
    },
}

/// As [`load_reporting`], for who wants the images alone.
///
/// # Errors
/// As there.
pub fn load(
    store: &Store,
    from: LoadFrom<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Image>, ArchiveError> {
    let mut images = Vec::new();
    load_reporting(store, from, options, progress, &mut |event| {
        if let LoadEvent::Loaded { image, .. } = event {
            images.push(image.clone());
        }
    })?;
    Ok(images)
}

/// Loads every image of a docker-archive, an oci-archive (each also compressed) or an OCI image
/// layout. Names that the archive gives move to its images. What is no image is passed over, unless
/// there is nothing else. `report` hears of each entry when it is done.
///
/// # Errors
/// [`ArchiveError`]. Where the archive cannot be read, or the store not be written to, the images before are loaded;
/// where some entries are at fault, all the others are, and it is [`ArchiveError::Incomplete`]. Nothing of an image that is
/// not loaded is left.
pub fn load_reporting(
    store: &Store,
    from: LoadFrom<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
    report: &mut dyn FnMut(LoadEvent<'_>),
) -> Result<(), ArchiveError> {
    let result = {
        let _content = store.using_content()?;
        load_with(store, from, options, progress, report)
    };
    // Files of the archive that belong to no image have become blobs too.
    store.tidy();
    result
}

fn load_with(
    store: &Store,
    from: LoadFrom<'_>,
    options: &LoadOptions,
    progress: &dyn Progress,
    report: &mut dyn FnMut(LoadEvent<'_>),
) -> Result<(), ArchiveError> {
    let source = match from {
        LoadFrom::Path(path) if path.is_dir() => {
            if !is_layout(path) {
                return Err(ArchiveError::Unknown);
            }
            Source::Directory(path.to_owned())
        }
        LoadFrom::Path(path) => {
            let mut file = File::open(path).map_err(io_error("open", path))?;
            Source::read_tar(store, &mut file, progress)?
        }
        LoadFrom::Reader(reader) => Source::read_tar(store, reader, progress)?,
    };
    let mut reporter = Reporter {
        report,
        entries: 0,
        loaded: 0,
        failed: 0,
        first: None,
    };
    let wanted = options.platform.as_ref();
    if source.has(docker::MANIFEST) {
        docker::load(store, &source, wanted, progress, &mut reporter)?;
    } else if source.has(layout::INDEX) {
        layout::load(store, &source, wanted, progress, &mut reporter)?;
    } else {
        return Err(ArchiveError::Unknown);
    }
    reporter.finish()
}

/// Tells the caller what becomes of the entries, and remembers whether one became an image.
pub(super) struct Reporter<'a> {
    report: &'a mut dyn FnMut(LoadEvent<'_>),
    /// How many images the archive says that it has.
    entries: usize,
    loaded: usize,
    failed: usize,
    /// Why the first one that is not loaded is not.
    first: Option<ArchiveError>,
}

impl Reporter<'_> {
    /// To be called first.
    pub(super) fn expect(&mut self, entries: usize) {
        self.entries = entries;
    }

    /// Takes in one entry; what is no image is passed over, and what is damaged does not lose the others.
    pub(super) fn take(
        &mut self,
        store: &Store,
        what: &str,
        names: &[Reference],
        load: impl FnOnce() -> Result<Image, ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let before = store.holders(names)?;
        let image = match load() {
            Ok(image) => image,
            Err(error) => return self.refuse(what, error),
        };
        for (name, old) in names.iter().zip(&before) {
            if let Some(old) = old.as_ref().filter(|old| **old != image.id) {
                (self.report)(LoadEvent::Renamed { name, old });
            }
        }
        (self.report)(LoadEvent::Loaded {
            image: &image,
            names,
        });
        self.loaded += 1;
        Ok(())
    }

    /// An entry that does not become an image. An error is returned where it is none of the entry's own.
    pub(super) fn refuse(&mut self, what: &str, why: ArchiveError) -> Result<(), ArchiveError> {
        if why.passes_over() {
            self.skip(what, why);
        } else if why.is_of_entry() {
            self.fail(what, why);
        } else {
            return Err(why);
        }
        Ok(())
    }

    fn fail(&mut self, what: &str, why: ArchiveError) {
        self.failed += 1;
        // A lone entry's error is the whole load's.
        if self.entries > 1 {
            let what = GuestText::start(what, 200);
            (self.report)(LoadEvent::Failed {
                what: &what,
                why: &why,
            });
        }
        self.first.get_or_insert(why);
    }

    fn skip(&mut self, what: &str, why: ArchiveError) {
        let what = GuestText::start(what, 200);
        (self.report)(LoadEvent::Skipped {
            what: &what,
            why: &why,
        });
        self.first.get_or_insert(why);
    }

    /// An archive without a single image is an error: why the first entry is none. So is one with a damaged entry.
    fn finish(self) -> Result<(), ArchiveError> {
        match (self.loaded, self.failed, self.first) {
            (0, 0, first) => Err(first.unwrap_or(ArchiveError::Empty)),
            (_, 0, _) => Ok(()),
            (_, _, Some(first)) if self.entries == 1 => Err(first),
            (_, failed, _) => Err(ArchiveError::Incomplete {
                failed,
                entries: self.entries,
            }),
        }
    }
}
