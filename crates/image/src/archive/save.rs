//! `save`: images from the store into an archive that others read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bulkhead_types::Digest;
use oci_spec::image::Descriptor;

use super::docker::{self, Entry};
use super::error::{ArchiveError, io_error};
use crate::decompress::Decoder;
use crate::manifest::{ManifestError, OCI_INDEX, OCI_MANIFEST, digest_of};
use crate::progress::{Outcome, Phase, Progress};
use crate::reference::Reference;
use crate::store::{Image, Store, StoreError, describe, set_names};

const BUFFER: usize = 256 << 10;
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveFormat {
    /// What `docker load`, `podman load` and skopeo's `docker-archive:` read.
    #[default]
    DockerArchive,
    /// An OCI image layout in a tar archive; manifests keep their digests.
    OciArchive,
    /// An OCI image layout in a directory.
    OciDirectory,
}

/// Where an archive goes.
pub enum SaveTo<'a> {
    /// A file that appears when it is complete, or the directory of a layout.
    Path(&'a Path),
    /// A stream, for example standard output; not for [`SaveFormat::OciDirectory`].
    Writer(&'a mut dyn Write),
}

/// Saves images, named as for [`Store::resolve`]; a repository without a tag means all its tags. An image that is
/// named by identifier is saved without a name.
///
/// # Errors
/// [`ArchiveError`]; no file is left then.
pub fn save(
    store: &Store,
    targets: &[String],
    format: SaveFormat,
    to: SaveTo<'_>,
    progress: &dyn Progress,
) -> Result<(), ArchiveError> {
    if let (SaveFormat::DockerArchive | SaveFormat::OciArchive, SaveTo::Path(path)) = (format, &to)
    {
        check_target(path)?;
    }
    let _content = store.using_content()?;
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for target in targets {
        for (image, name) in meant(store, target)? {
            match images
                .iter_mut()
                .find(|(known, _)| known.manifest_digest == image.manifest_digest)
            {
                Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
                None => images.push((image, name.into_iter().collect())),
            }
        }
    }
    let saver = Saver {
        store,
        images: &images,
        progress,
    };
    let write = |source| ArchiveError::Write { source };
    match (format, to) {
        (SaveFormat::OciDirectory, SaveTo::Path(dir)) => saver.directory(dir),
        (SaveFormat::OciDirectory, SaveTo::Writer(_)) => {
            Err(write(io::Error::other("a directory is no stream")))
        }
        (format, SaveTo::Writer(writer)) => {
            let mut writer = BufWriter::with_capacity(BUFFER, writer);
            saver.tar(format, &mut writer)?;
            writer.flush().map_err(write)
        }
        (format, SaveTo::Path(path)) => {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            // Its mode is 0600, as Docker's: an image can hold what its owner shows to nobody.
            let file = tempfile::Builder::new()
                .prefix(".bulkhead-save-")
                .tempfile_in(parent);
            let mut file = file.map_err(io_error("create a file in", parent))?;
            {
                let mut writer = BufWriter::with_capacity(BUFFER, &mut file);
                saver.tar(format, &mut writer)?;
                writer.flush().map_err(write)?;
            }
            file.persist(path)
                .map_err(|e| io_error("rename to", path)(e.error))?;
            Ok(())
        }
    }
}

/// The images that a target names, each with the name to save: of a repository without a tag all its tags, as in
/// Docker.
fn meant(store: &Store, target: &str) -> Result<Vec<(Image, Option<Reference>)>, StoreError> {
    let reference = target.parse::<Reference>().ok();
    if let Some(repository) = reference.as_ref().filter(|name| name.is_name_only(target)) {
        let mut all = Vec::new();
        for image in store.images()? {
            let tags = image.names.iter().filter(|name| {
                name.digest().is_none()
                    && name.registry() == repository.registry()
                    && name.repository() == repository.repository()
            });
            let tags: Vec<Reference> = tags.cloned().collect();
            all.extend(tags.into_iter().map(|tag| (image.clone(), Some(tag))));
        }
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let image = store.resolve(target)?;
    let name = reference.filter(|name| image.names.contains(name));
    Ok(vec![(image, name)])
}

/// Refuses to put a file where something is that is no file. The archive gets its name by a rename, which would
/// replace a device, for every program of the host, or a link, and never write to either. Docker refuses the
/// same, in these words (`atomicwriter` of github.com/moby/sys).
fn check_target(path: &Path) -> Result<(), ArchiveError> {
    use std::os::unix::fs::FileTypeExt;
    let refused = |reason: String| ArchiveError::Target { reason };
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty())
        && let Err(source) = fs::metadata(parent)
    {
        let parent = parent.display();
        return Err(refused(format!("invalid output path: {parent}: {source}")));
    }
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io_error("inspect", path)(source)),
    };
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        return Err(refused(
            "cannot write to a symbolic link directly".to_owned(),
        ));
    } else if kind.is_fifo() {
        "named pipe (FIFO)"
    } else if kind.is_char_device() {
        "character device file"
    } else if kind.is_block_device() {
        "block device file"
    } else {
        "socket"
    };
    Err(refused(format!("cannot write to a {what}")))
}

struct Saver<'a> {
    store: &'a Store,
    images: &'a [(Image, Vec<Reference>)],
    progress: &'a dyn Progress,
}

impl Saver<'_> {
    fn tar(&self, format: SaveFormat, writer: &mut dyn Write) -> Result<(), ArchiveError> {
        let mut tar = tar::Builder::new(writer);
        match format {
            SaveFormat::DockerArchive => self.docker(&mut tar)?,
            _ => {
                add(&mut tar, "oci-layout", OCI_LAYOUT)?;
                add(&mut tar, "index.json", &self.index()?)?;
                for digest in self.blobs()? {
                    let (file, size) = self.open(&digest)?;
                    self.stream(
                        &mut tar,
                        &format!("blobs/sha256/{}", digest.hex()),
                        file,
                        size,
                    )?;
                }
            }
        }
        tar.finish()
            .map_err(|source| ArchiveError::Write { source })
    }

    /// Layers are written uncompressed: readers of this format compare them with the
    /// configuration's digests as they are.
    fn docker(&self, tar: &mut tar::Builder<&mut dyn Write>) -> Result<(), ArchiveError> {
        let mut written = BTreeSet::new();
        let mut entries = Vec::new();
        for (image, names) in self.images {
            let config = format!("{}.json", image.id.hex());
            if written.insert(config.clone()) {
                add(tar, &config, &self.store.raw_config(image)?)?;
            }
            let mut layers = Vec::new();
            for (blob, diff_id) in image.manifest.layers().iter().zip(&image.diff_ids) {
                let name = format!("{}.tar", diff_id.hex());
                if written.insert(name.clone()) {
                    let digest = digest(image, blob)?;
                    // A tar header has the size in front: once through to count, once to write.
                    let size = io::copy(&mut self.uncompressed(&digest)?, &mut io::sink())
                        .map_err(|source| StoreError::Decompress {
                            digest: digest.clone(),
                            source,
                        })?;
                    self.stream(tar, &name, self.uncompressed(&digest)?, size)?;
                }
                layers.push(name);
            }
            let repo_tags = Some(names.iter().map(Reference::familiar).collect());
            entries.push(Entry {
                config,
                repo_tags,
                layers: Some(layers),
            });
        }
        let parse = |source| document_error(docker::MANIFEST, source);
        add(
            tar,
            docker::MANIFEST,
            &serde_json::to_vec(&entries).map_err(parse)?,
        )
    }

    fn directory(&self, dir: &Path) -> Result<(), ArchiveError> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(io_error("create directory", &blobs))?;
        for digest in self.blobs()? {
            let path = blobs.join(digest.hex());
            let item = digest.short();
            let (mut file, size) = self.open(&digest)?;
            self.progress.start(&item, Phase::Saving, Some(size));
            let mut out = tempfile::NamedTempFile::new_in(&blobs)
                .map_err(io_error("create a file in", &blobs))?;
            io::copy(&mut file, &mut out).map_err(io_error("write", &path))?;
            out.persist(&path)
                .map_err(|e| io_error("rename to", &path)(e.error))?;
            self.progress.finish(&item, Outcome::Done);
        }
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            fs::write(&path, bytes).map_err(io_error("write", &path))
        };
        write("index.json", &self.index()?)?;
        write("oci-layout", OCI_LAYOUT)
    }

    fn index(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut manifests: Vec<Descriptor> = Vec::new();
        for (image, names) in self.images {
            let stated = image
                .manifest
                .media_type()
                .as_ref()
                .map(ToString::to_string);
            let size = self
                .store
                .blob_size(&image.manifest_digest)
                .unwrap_or_default();
            let bare = describe(
                stated.as_deref().unwrap_or(OCI_MANIFEST),
                &image.manifest_digest,
                size,
            )?;
            if names.is_empty() {
                manifests.push(bare.clone());
            }
            for name in names {
                let mut named = bare.clone();
                set_names(&mut named, Some(name), &[]);
                manifests.push(named);
            }
        }
        let document: BTreeMap<&str, serde_json::Value> = BTreeMap::from([
            ("schemaVersion", 2.into()),
            ("mediaType", OCI_INDEX.into()),
            (
                "manifests",
                serde_json::to_value(manifests).map_err(index_error)?,
            ),
        ]);
        serde_json::to_vec(&document).map_err(index_error)
    }

    /// Every blob of the images, once.
    fn blobs(&self) -> Result<Vec<Digest>, ArchiveError> {
        let mut all: HashMap<Digest, ()> = HashMap::new();
        let mut ordered = Vec::new();
        for (image, _) in self.images {
            let mut digests = vec![image.manifest_digest.clone(), image.id.clone()];
            for layer in image.manifest.layers() {
                digests.push(digest(image, layer)?);
            }
            ordered.extend(
                digests
                    .into_iter()
                    .filter(|one| all.insert(one.clone(), ()).is_none()),
            );
        }
        Ok(ordered)
    }

    fn open(&self, digest: &Digest) -> Result<(File, u64), ArchiveError> {
        let path: PathBuf = self.store.blob_path(digest);
        let missing = || StoreError::MissingBlob {
            digest: digest.clone(),
            image: digest.short(),
        };
        let size = self.store.blob_size(digest).ok_or_else(missing)?;
        Ok((File::open(&path).map_err(io_error("open", &path))?, size))
    }

    fn uncompressed(&self, digest: &Digest) -> Result<impl Read + use<>, ArchiveError> {
        let (file, _) = self.open(digest)?;
        let decoder = Decoder::new(BufReader::with_capacity(BUFFER, file));
        decoder.map_err(|source| {
            StoreError::Decompress {
                digest: digest.clone(),
                source,
            }
            .into()
        })
    }

    fn stream(
        &self,
        tar: &mut tar::Builder<&mut dyn Write>,
        name: &str,
        reader: impl Read,
        size: u64,
    ) -> Result<(), ArchiveError> {
        let item: String = name
            .rsplit('/')
            .next()
            .unwrap_or(name)
            .chars()
            .take(12)
            .collect();
        self.progress.start(&item, Phase::Saving, Some(size));
        let counted = Counted {
            reader,
            advance: &|n| self.progress.advance(&item, n),
        };
        let written = tar.append_data(&mut header(size), name, counted);
        written.map_err(|source| ArchiveError::Write { source })?;
        self.progress.finish(&item, Outcome::Done);
        Ok(())
    }
}

fn index_error(source: serde_json::Error) -> ArchiveError {
    document_error("index.json", source)
}

fn document_error(name: &str, source: serde_json::Error) -> ArchiveError {
    let document = "list of images";
    ArchiveError::parse(name)(ManifestError::Parse { document, source })
}

fn digest(image: &Image, blob: &Descriptor) -> Result<Digest, StoreError> {
    digest_of(blob).map_err(|source| StoreError::Document {
        digest: image.manifest_digest.clone(),
        source,
    })
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn add(
    tar: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    bytes: &[u8],
) -> Result<(), ArchiveError> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    tar.append_data(&mut header(size), name, bytes)
        .map_err(|source| ArchiveError::Write { source })
}

struct Counted<'a, R> {
    reader: R,
    advance: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        (self.advance)(u64::try_from(n).unwrap_or_default());
        Ok(n)
    }
}
