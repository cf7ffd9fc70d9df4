//! The kinds of gateway whose pages differ.

use serde::{Deserialize, Serialize};

/// A kind of gateway, by the set of DJI's pages that describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayModel {
    /// DJI Dock, first generation.
    Dock,
    /// DJI Dock 2.
    Dock2,
    /// DJI Dock 3.
    Dock3,
    /// DJI RC Plus and DJI Smart Controller Enterprise.
    Rc,
    /// DJI RC Pro Enterprise.
    RcPro,
    /// DJI RC Plus 2.
    #[serde(rename = "rc_plus_2")]
    RcPlus2,
}

impl GatewayModel {
    /// The model of the numbers a gateway gives in `update_topo`. `None` for models no page describes.
    #[must_use]
    pub fn from_numbers(domain: i64, kind: i64, sub_type: i64) -> Option<Self> {
        match (domain, kind, sub_type) {
            (3, 1, 0) => Some(Self::Dock),
            (3, 2, 0) => Some(Self::Dock2),
            (3, 3, 0) => Some(Self::Dock3),
            (2, 56 | 119, 0) => Some(Self::Rc),
            (2, 144, 0) => Some(Self::RcPro),
            (2, 174, 0) => Some(Self::RcPlus2),
            _ => None,
        }
    }

    /// The same from a device key such as `3-2-0`.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        let mut numbers = key.split('-').map(|part| part.parse::<i64>().ok());
        let (domain, kind, sub_type) = (numbers.next()??, numbers.next()??, numbers.next()??);
        if numbers.next().is_some() {
            return None;
        }
        Self::from_numbers(domain, kind, sub_type)
    }

    /// The name used in the catalogue.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dock => "dock",
            Self::Dock2 => "dock2",
            Self::Dock3 => "dock3",
            Self::Rc => "rc",
            Self::RcPro => "rc_pro",
            Self::RcPlus2 => "rc_plus_2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_known_by_its_device_key() {
        assert_eq!(GatewayModel::from_key("3-1-0"), Some(GatewayModel::Dock));
        assert_eq!(GatewayModel::from_key("2-119-0"), Some(GatewayModel::Rc));
        for unknown in ["", "3", "3-9-0", "0-67-0", "3-1-0-0", "a-b-c", "1-65534-0"] {
            assert_eq!(GatewayModel::from_key(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_name_is_the_one_the_data_file_uses() {
        for model in [
            GatewayModel::Dock,
            GatewayModel::Dock2,
            GatewayModel::Dock3,
            GatewayModel::Rc,
            GatewayModel::RcPro,
            GatewayModel::RcPlus2,
        ] {
            let name = serde_json::to_value(model).ok();
            assert_eq!(name.as_ref().and_then(|n| n.as_str()), Some(model.as_str()));
        }
    }
}
