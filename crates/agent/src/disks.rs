//! Finds virtio disks by the serial numbers that the host gave them, and the image where it is memory.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Why a disk was not found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("no disk has the serial number '{0}'")]
    Absent(String),
    #[error("cannot read the serial number of disk {name}")]
    Serial {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// More disks than virtio-blk names with one letter are not looked for.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// The first memory device.
const MEMORY: &str = "pmem0";

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its block device.
    pub(crate) device: PathBuf,
    /// The device is memory that the host shares (virtio-pmem).
    pub(crate) memory: bool,
}

/// Reading this waits until the kernel has looked at all memory devices, which it does in the background.
const MEMORY_PROBED: &str = "../class/nd/ndctl0/device/wait_probe";

/// The guest's disks. Reading a serial number asks the device, so each is read once.
#[derive(Debug)]
pub(crate) struct Disks {
    sys: PathBuf,
    dev: PathBuf,
    known: Mutex<Vec<String>>,
}

impl Disks {
    /// Looks below `sys` (/sys/block) and names devices below `dev` (/dev).
    pub(crate) fn new(sys: &Path, dev: &Path) -> Self {
        Self {
            sys: sys.to_owned(),
            dev: dev.to_owned(),
            known: Mutex::new(Vec::new()),
        }
    }

    /// The device with this serial number.
    pub(crate) fn find(&self, serial: &str) -> Result<PathBuf, DiskError> {
        // The lock is held by nobody who can panic, so a poisoned one is still right.
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for (index, letter) in LETTERS.chars().enumerate() {
            let name = format!("vd{letter}");
            if known.len() <= index {
                match read_serial(&self.sys.join(&name).join("serial")) {
                    Ok(text) => known.push(text),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    Err(source) => return Err(DiskError::Serial { name, source }),
                }
            }
            if known.get(index).is_some_and(|known| known == serial) {
                return Ok(self.dev.join(name));
            }
        }
        Err(DiskError::Absent(serial.to_owned()))
    }

    /// The image: the disk with this serial number, or else the memory device, of which a guest has one at most.
    pub(crate) fn find_image(&self, serial: &str) -> Result<Image, DiskError> {
        match self.find(serial) {
            Ok(device) => Ok(Image {
                device,
                memory: false,
            }),
            Err(DiskError::Absent(serial)) => {
                // Without the file there is no memory device, as the next look will tell.
                std::fs::read(self.sys.join(MEMORY_PROBED)).ok();
                if !self.sys.join(MEMORY).exists() {
                    return Err(DiskError::Absent(serial));
                }
                Ok(Image {
                    device: self.dev.join(MEMORY),
                    memory: true,
                })
            }
            Err(error) => Err(error),
        }
    }
}

/// A serial number has at most 20 bytes (virtio, "Block Device", VIRTIO_BLK_T_GET_ID).
fn read_serial(path: &Path) -> io::Result<String> {
    let mut buffer = [0; 32];
    let length = std::fs::File::open(path)?.read(&mut buffer)?;
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or(&[]));
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_found_by_its_serial_number_alone() {
        let sys = tempfile::tempdir().unwrap();
        for (name, serial) in [("vda", "scratch\n"), ("vdb", "image"), ("vdc", "vol0\n")] {
            std::fs::create_dir(sys.path().join(name)).unwrap();
            std::fs::write(sys.path().join(name).join("serial"), serial).unwrap();
        }
        let disks = Disks::new(sys.path(), Path::new("/dev"));
        assert_eq!(disks.find("image").unwrap(), Path::new("/dev/vdb"));
        assert_eq!(disks.find("scratch").unwrap(), Path::new("/dev/vda"));
        assert_eq!(disks.find("vol0").unwrap(), Path::new("/dev/vdc"));
        assert!(matches!(disks.find("vol1"), Err(DiskError::Absent(_))));
        assert!(matches!(disks.find(""), Err(DiskError::Absent(_))));
    }

    #[test]
    fn an_image_is_memory_only_where_no_disk_has_its_serial_number() {
        let top = tempfile::tempdir().unwrap();
        let sys = top.path().join("block");
        std::fs::create_dir_all(sys.join("vda")).unwrap();
        std::fs::write(sys.join("vda/serial"), "scratch").unwrap();
        let disks = || Disks::new(&sys, Path::new("/dev"));
        let absent = disks().find_image("image");
        assert!(matches!(absent, Err(DiskError::Absent(_))), "{absent:?}");

        std::fs::create_dir(sys.join("pmem0")).unwrap();
        let image = disks().find_image("image").unwrap();
        assert_eq!(
            (image.device.as_path(), image.memory),
            (Path::new("/dev/pmem0"), true)
        );

        std::fs::create_dir(sys.join("vdb")).unwrap();
        std::fs::write(sys.join("vdb/serial"), "image").unwrap();
        let image = disks().find_image("image").unwrap();
        assert_eq!(
            (image.device.as_path(), image.memory),
            (Path::new("/dev/vdb"), false)
        );
    }
}
