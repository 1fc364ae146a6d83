//! A look at the whole of a JSON document that builds nothing, before anything is built of it.
//!
//! A few bytes of JSON become a hundred times as many in memory: `{}` in a history takes 104, and a list doubles while it
//! grows. Length alone therefore bounds nothing; the number of values does.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::error::ManifestError;

/// Values of one document, with those in lists and maps: the longest manifest and index that are accepted (4,096
/// entries, each of a dozen) have 49,152. Whatever they are, they take less than 32 MiB when they are parsed. A document
/// with more is refused.
pub(super) const VALUES_MAX: usize = 64 << 10;

/// Parses a document of at most `limit` bytes and [`VALUES_MAX`] values.
pub(crate) fn parse_json<T: DeserializeOwned>(
    document: &'static str,
    bytes: &[u8],
    limit: u64,
) -> Result<T, ManifestError> {
    let actual = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if actual > limit {
        return Err(ManifestError::TooLarge {
            document,
            actual,
            limit,
        });
    }
    let parse = |source| ManifestError::Parse { document, source };
    let mut left = VALUES_MAX;
    walk(bytes, &mut |_| {
        left = left.checked_sub(1)?;
        Some(())
    })
    .map_err(|refused| match refused {
        Stop::Told => ManifestError::TooManyValues {
            document,
            limit: VALUES_MAX,
        },
        Stop::Parse(source) => parse(source),
    })?;
    serde_json::from_slice(bytes).map_err(parse)
}

/// Why a walk ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The visitor said so.
    Told,
    /// It is no JSON.
    Parse(serde_json::Error),
}

/// Calls `see` for each value of the document, with its text where it is one, until it says `None`. Keys of maps are no
/// values of their own. Takes no memory but for one string.
pub(crate) fn walk(
    bytes: &[u8],
    see: &mut dyn FnMut(Option<&str>) -> Option<()>,
) -> Result<(), Stop> {
    let mut told = false;
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let walked = Walk {
        see,
        told: &mut told,
    }
    .deserialize(&mut parser)
    .and_then(|()| parser.end());
    match walked {
        Ok(()) => Ok(()),
        Err(_) if told => Err(Stop::Told),
        Err(source) => Err(Stop::Parse(source)),
    }
}

struct Walk<'a> {
    see: &'a mut dyn FnMut(Option<&str>) -> Option<()>,
    told: &'a mut bool,
}

impl Walk<'_> {
    fn value<E: Error>(&mut self, text: Option<&str>) -> Result<(), E> {
        (self.see)(text).ok_or_else(|| {
            *self.told = true;
            E::custom("stopped")
        })
    }

    fn inner(&mut self) -> Walk<'_> {
        Walk {
            see: self.see,
            told: self.told,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.value(None)
    }

    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.value(None)
    }

    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.value(None)
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.value(None)
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.value(None)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.value(Some(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.value(None)?;
        while list.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.value(None)?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_seen_once() {
        let text = br#"{"a": [1, -1, 1.5, "x", null, true], "b": {"c": "y", "d": {}}}"#;
        let (mut values, mut texts) = (0, Vec::new());
        walk(text, &mut |seen| {
            values += 1;
            texts.extend(seen.map(str::to_owned));
            Some(())
        })
        .unwrap();
        assert_eq!(values, 11);
        assert_eq!(texts, ["x", "y"]);
        assert!(matches!(
            walk(b"{} {}", &mut |_| Some(())),
            Err(Stop::Parse(_))
        ));
        assert!(matches!(walk(b"[1,2]", &mut |_| None), Err(Stop::Told)));
    }

    #[test]
    fn a_document_of_very_many_values_is_refused_before_it_is_parsed() {
        let list = |n: usize| format!("[{}]", vec!["{}"; n].join(","));
        let parse = |text: String| parse_json::<Vec<IgnoredAny>>("index", text.as_bytes(), 1 << 20);
        assert_eq!(parse(list(VALUES_MAX - 1)).unwrap().len(), VALUES_MAX - 1);
        let error = parse(list(VALUES_MAX)).unwrap_err();
        assert!(
            matches!(error, ManifestError::TooManyValues { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("65536"), "{error}");
    }
}
