//! OCI images: references, registry, store, layers, EROFS image disks, archives.
