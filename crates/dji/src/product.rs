//! DJI's products by the numbers they tell: `domain-type-sub_type`, such as `3-2-0`. What is not in the table keeps its
//! numbers, which is what a name is for programs.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use utmos_core::device::DeviceKind;

const PRODUCTS: &str = include_str!("../data/products.json");

/// Longest key that is read.
const KEY_BYTES_MAX: usize = 32;

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// What it is.
    pub kind: DeviceKind,
    /// What it is called.
    pub name: String,
}

// A test reads the table; one that cannot be read names nothing.
static TABLE: LazyLock<BTreeMap<String, Product>> =
    LazyLock::new(|| serde_json::from_str(PRODUCTS).unwrap_or_default());

/// The product of a key, where it is known.
#[must_use]
pub fn of(key: &str) -> Option<&'static Product> {
    TABLE.get(key)
}

/// What a key says a device is, also one of a product nobody knows: the domain alone tells. `None` for payloads, and for
/// what is no key.
#[must_use]
pub fn kind_of(key: &str) -> Option<DeviceKind> {
    if !is_key(key) {
        return None;
    }
    match key.split('-').next() {
        Some("0") => Some(DeviceKind::Aircraft),
        Some("2") => Some(DeviceKind::RemoteController),
        Some("3") => Some(DeviceKind::Dock),
        Some(_) | None => None,
    }
}

/// Whether a text is three numbers with dashes between them.
#[must_use]
pub fn is_key(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= KEY_BYTES_MAX && text.split('-').count() == 3 && text.split('-').all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_read_and_says_of_each_what_its_domain_says() {
        assert!(TABLE.len() >= 21, "{}", TABLE.len());
        for (key, product) in TABLE.iter() {
            assert_eq!(kind_of(key), Some(product.kind), "{key}");
            assert!(product.name.starts_with("DJI "), "{key}");
        }
    }

    #[test]
    fn what_is_not_known_keeps_its_numbers() {
        assert_eq!(of("3-2-0").map(|product| product.name.as_str()), Some("DJI Dock 2"));
        assert_eq!((of("3-99-0"), kind_of("3-99-0")), (None, Some(DeviceKind::Dock)));
        assert_eq!((of("1-65534-0"), kind_of("1-65534-0")), (None, None));
        for bad in ["", "3", "3-1", "3-1-0-0", "a-b-c", "3--0", &format!("0-1-{}", "1".repeat(40))]
        {
            assert!(!is_key(bad) && kind_of(bad).is_none(), "{bad}");
        }
    }
}
