//! Images where containers come in: use, removal, pruning.

use bulkhead_image::{
    Image, ImageUse, Platform, PruneFilter, Pruned, Reference, Removed, StoreError,
};
use bulkhead_sandbox::Status;
use bulkhead_types::Digest;
use jiff::Timestamp;

use crate::Engine;
use crate::container::{ContainerError, Filters};
use crate::error::Error;
use crate::time::parse_time;

impl Engine {
    /// The image with this name, identifier or digest. A missing one is an error of kind
    /// `NotFound` with Docker's words.
    pub fn image(&self, text: &str) -> Result<Image, Error> {
        self.store()?.resolve(text).map_err(|error| match error {
            StoreError::NotFound(_) => missing(text),
            other => other.into(),
        })
    }

    /// The image that a container is made of, and a warning where nobody asked for its platform and this host does not
    /// run it.
    pub(crate) fn image_for(
        &self,
        text: &str,
        platform: Option<&Platform>,
    ) -> Result<(Image, Option<String>), Error> {
        let image = self.image(text)?;
        let actual = || Platform::of_image(&image.config).to_string();
        let warning = match platform {
            Some(wanted) if !wanted.accepts_image(&image.config) => {
                return Err(Error::OtherPlatform {
                    name: familiar(text),
                    actual: actual(),
                    wanted: wanted.to_string(),
                });
            }
            None if !Platform::host().accepts_image(&image.config) => Some(format!(
                "The requested image's platform ({}) does not match the detected host platform ({}) \
                 and no specific platform was requested",
                actual(),
                Platform::host_in_full()
            )),
            _ => None,
        };
        Ok((image, warning))
    }

    /// The identifier of an image, if there is one of that name.
    pub(crate) fn image_id(&self, text: &str) -> Option<Digest> {
        self.store().ok()?.resolve(text).ok().map(|image| image.id)
    }

    /// Removes a name, or an image with all its names; images that containers use are protected as
    /// in Docker.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Vec<Removed>, Error> {
        if !self.root.exists() {
            return Err(missing(text));
        }
        let uses = || self.image_uses();
        self.store()?
            .remove(text, force, &uses)
            .map_err(|error| match error {
                Error::Store(StoreError::NotFound(_)) => missing(text),
                other => other,
            })
    }

    /// Removes images without a name, with `all` every image that no container uses. Filters:
    /// `until`, `label`, `label!`, `dangling`.
    pub fn prune_images(&self, all: bool, filters: &Filters) -> Result<Pruned, Error> {
        let mut filter = if all {
            PruneFilter::Unused
        } else {
            PruneFilter::Dangling
        };
        let mut until: Option<Timestamp> = None;
        for (name, value) in filters.iter() {
            let bad = |name| ContainerError::FilterValue {
                name,
                value: value.to_owned(),
            };
            match (name, value) {
                ("dangling", "true" | "1") => filter = PruneFilter::Dangling,
                ("dangling", "false" | "0") => filter = PruneFilter::Unused,
                ("dangling", _) => return Err(bad("dangling").into()),
                ("until", _) => {
                    until = Some(parse_time(value, Timestamp::now()).ok_or_else(|| bad("until"))?);
                }
                ("label" | "label!", _) => {}
                (other, _) => return Err(ContainerError::FilterName(other.to_owned()).into()),
            }
        }
        let also = |image: &Image| {
            let labels = image
                .config
                .config()
                .as_ref()
                .and_then(|config| config.labels().clone());
            let has = |text: &str| {
                let (key, wanted) = text
                    .split_once('=')
                    .map_or((text, None), |(k, v)| (k, Some(v)));
                let value = labels.as_ref().and_then(|labels| labels.get(key));
                value.is_some_and(|value| wanted.is_none_or(|wanted| wanted == value))
            };
            until.is_none_or(|until| image.created.is_none_or(|created| created < until))
                && filters.values("label").all(has)
                && !filters.values("label!").any(has)
        };
        if !self.root.exists() {
            return Ok(Pruned::default());
        }
        self.store()?.prune(filter, &|| self.image_uses(), &also)
    }

    /// Which containers hold on to which images. A container whose record cannot be read may need any
    /// image, so it is an error: an image that was imported or bootstrapped cannot be had again.
    fn image_uses(&self) -> Result<Vec<ImageUse>, Error> {
        let mut uses = Vec::new();
        for found in self.each_container()? {
            let container =
                found.map_err(|(id, source)| ContainerError::UnknownImage { id, source })?;
            uses.push(ImageUse {
                image: container.record().image_id.clone(),
                container: container.id().short().to_owned(),
                // A container whose state cannot be read may run.
                running: container
                    .state()
                    .map_or(true, |state| state.status == Status::Running),
            });
        }
        Ok(uses)
    }
}

/// There is no image of this name; where it cannot be one's name, no registry has it either, and that is said.
fn missing(text: &str) -> Error {
    match text.parse::<Reference>() {
        Err(error) if !is_identifier(text) => error.into(),
        _ => Error::NoSuchImage(familiar(text)),
    }
}

/// Whether `text` is an image's whole identifier, which the grammar of names leaves out.
fn is_identifier(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `debian` is shown as `debian:latest`, as Docker does.
fn familiar(text: &str) -> String {
    text.parse::<Reference>()
        .map_or_else(|_| text.to_owned(), |reference| reference.familiar())
}
