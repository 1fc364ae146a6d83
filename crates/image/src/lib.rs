//! OCI images: references, registries, the store, layers, image disks, archives.
//!
//! | module | what it is for |
//! |---|---|
//! | `reference`, `platform`, `manifest` | names and documents from outside, parsed once, with bounds |
//! | `store` | the OCI image layout, converted layers, merged disks; atomic, locked, swept |
//! | `registry` | `pull` and `push` |
//! | `archive` | `load`, `save`, `import` |
//! | `budget` | what one image may cost the host: memory, and space that stays free |
//! | `bootstrap` | an image of a Debian suite without any registry |
//! | `layer`, `erofs`, `disk` | tar stream → data blob and tree → one read-only disk per image |
//!
//! All entry points block; those that take long report to a [`Progress`].

mod archive;
mod bootstrap;
mod budget;
mod decompress;
pub mod disk;
pub mod erofs;
mod kind;
pub mod layer;
mod manifest;
mod platform;
mod progress;
mod reference;
mod registry;
mod store;

pub use archive::{
    ArchiveError, Change, ImportOptions, LoadEvent, LoadFrom, LoadOptions, ParseChangeError,
    SaveFormat, SaveTo, import, load, load_reporting, save,
};
pub use bootstrap::{BootstrapError, BootstrapOptions, bootstrap};
pub use budget::{Bounds, Budget};
pub use kind::ErrorKind;
pub use manifest::{
    CONFIG_MAX, Document, MANIFEST_MAX, ManifestError, diff_ids, digests_searched, parse_config,
    parse_manifest,
};
pub use platform::{ParsePlatformError, Platform};
pub use progress::{Outcome, Phase, Progress, Quiet};
pub use reference::{Reference, ReferenceError};
pub use registry::{
    CertificatesError, Credentials, CredentialsError, PullOptions, PushSummary, RegistryError,
    RegistryOptions, RetryPolicy, Searched, pull, push,
};
pub use store::{
    HistoryEntry, Image, ImageDisk, ImageUse, Lease, PruneFilter, Pruned, Removed, Store,
    StoreError, claim,
};
