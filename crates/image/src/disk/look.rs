//! Answers what an image has at a path, without a guest.

use std::path::PathBuf;

use super::{Bounds, DiskError, merge};
use crate::erofs::{Body, Tree};
use crate::layer::read_within;

/// Symbolic links that are followed in one path, as in Linux (MAXSYMLINKS).
const MOST_LINKS: usize = 40;

/// What an image has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or a link that leads nowhere.
    Nothing,
    /// A directory.
    Directory,
    /// A file or something else that is no directory, there or on the way there.
    Other,
}

/// Looks absolute paths up in the image whose layers are in these directories, lowest first. Symbolic links are
/// followed, with the image's root as their root.
///
/// # Errors
///
/// [`DiskError`] names the layer and what is wrong with it.
pub fn look(
    layers: &[PathBuf],
    paths: &[String],
    bounds: &Bounds,
) -> Result<Vec<Found>, DiskError> {
    let mut merged = merge::Merged::new(bounds.budget());
    for layer in layers {
        let tree = read_within(layer, merged.memory()).map_err(|source| DiskError::Index {
            layer: layer.clone(),
            source,
        })?;
        merged.apply(tree).map_err(|source| DiskError::Merge {
            layer: layer.clone(),
            source,
        })?;
    }
    let (tree, _) = merged.into_tree();
    Ok(paths.iter().map(|path| find(&tree, path)).collect())
}

fn find(tree: &Tree, path: &str) -> Found {
    let split = |path: &[u8]| -> Vec<Vec<u8>> {
        let parts = path.split(|byte| *byte == b'/');
        parts
            .filter(|part| !part.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    // The next component is the last one.
    let mut left = split(path.as_bytes());
    left.reverse();
    let mut place = vec![0];
    let mut links = 0;
    while let Some(name) = left.pop() {
        match name.as_slice() {
            b"." => continue,
            b".." => {
                if place.len() > 1 {
                    place.pop();
                }
                continue;
            }
            _ => {}
        }
        let here = place.last().copied().unwrap_or(0);
        let Some(id) = tree
            .children(here)
            .and_then(|names| names.get(name.as_slice()))
        else {
            return Found::Nothing;
        };
        match tree.get(*id).map(|inode| &inode.body) {
            Some(Body::Directory(_)) => place.push(*id),
            Some(Body::Symlink(target)) => {
                links += 1;
                if links > MOST_LINKS {
                    return Found::Nothing;
                }
                if target.starts_with(b"/") {
                    place.truncate(1);
                }
                left.extend(split(target).into_iter().rev());
            }
            Some(_) => return Found::Other,
            None => return Found::Nothing,
        }
    }
    Found::Directory
}
