//! Why a document is refused. Words of the document are [`GuestText`]: they reach a terminal.

use bulkhead_types::GuestText;

/// Why a manifest, index or configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("cannot parse the {document}")]
    Parse {
        /// Which document.
        document: &'static str,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Larger than any honest document.
    #[error("the {document} is {actual} bytes long, at most {limit} are accepted")]
    TooLarge {
        /// Which document.
        document: &'static str,
        /// Bytes.
        actual: u64,
        /// Bytes.
        limit: u64,
    },
    /// Docker's manifest format before 2016.
    #[error("the image has a schema 1 manifest, which is not supported")]
    Schema1,
    /// A schema version from the future.
    #[error("manifest schema version {0} is not supported")]
    SchemaVersion(u64),
    /// Neither a manifest nor an index, by what it says of itself or what the registry says of it.
    #[error("media type '{0}' is no image manifest and no image index")]
    MediaType(GuestText),
    /// Could be read as a manifest and as an index (CVE-2021-41190).
    #[error("the manifest is ambiguous: it has layers and manifests")]
    AmbiguousDocument,
    /// An artifact that is no container image, for example a chart.
    #[error("not a container image: its configuration has media type '{0}'")]
    ConfigMediaType(GuestText),
    /// A layer of a type that cannot be unpacked.
    #[error("layer {digest} has unsupported media type '{media_type}'")]
    LayerMediaType {
        /// The layer.
        digest: GuestText,
        /// Its type.
        media_type: GuestText,
    },
    /// A digest that is not `sha256`.
    #[error("digest '{0}' is not supported, only sha256 is")]
    Digest(GuestText),
    /// More values than any honest document has, however short it is.
    #[error("the {document} has more than {limit} values, which would take too much memory")]
    TooManyValues {
        /// Which document.
        document: &'static str,
        /// Values, with those in lists and maps.
        limit: usize,
    },
    /// Too many layers, manifests, steps of a history or the like.
    #[error("the {document} lists {actual} entries, at most {limit} are accepted")]
    TooMany {
        /// Which document.
        document: &'static str,
        /// Entries.
        actual: usize,
        /// Entries.
        limit: usize,
    },
    /// The configuration and the manifest disagree.
    #[error("the manifest has {layers} layers but the configuration {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// An index without anything for the wanted platform.
    #[error("no image for platform {wanted}; available: {}", .available.join(", "))]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },
    /// Indexes within indexes, deeper than anybody needs.
    #[error("the index holds indexes more than {0} deep")]
    TooDeep(usize),
    /// An index that leads from document to document without an image for the platform.
    #[error("no image for platform {wanted} among the first {limit} documents of the index")]
    SearchTooLong {
        /// What was asked for.
        wanted: String,
        /// Documents.
        limit: usize,
    },
}

impl ManifestError {
    /// Whether the document is sound but something else than a container image: an artifact, a signature, a layer of
    /// a foreign kind. In an index such a thing lies beside images and does not spoil them.
    pub(crate) fn is_no_image(&self) -> bool {
        matches!(
            self,
            Self::MediaType(_)
                | Self::ConfigMediaType(_)
                | Self::LayerMediaType { .. }
                | Self::Schema1
                | Self::SchemaVersion(_)
                | Self::Digest(_)
        )
    }
}
