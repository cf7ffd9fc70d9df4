//! Ids, each its own type; serial numbers that are always one safe topic level.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest serial number that is taken, in bytes.
pub const SN_BYTES_MAX: usize = 64;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            #[must_use]
            pub fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID inside.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// A command, from acceptance on. Version 7, so that ids made later sort later. It is also the `tid` on the wire.
    CommandId
);
uuid_id!(
    /// The business id (`bid`) of a command: made at acceptance, never changed.
    Bid
);
uuid_id!(
    /// A tenant.
    TenantId
);
uuid_id!(
    /// A request of a device. Version 7, so that ids made later sort later.
    DeviceRequestId
);
uuid_id!(
    /// A binding code, which may be told; the code itself is a secret.
    BindingCodeId
);

/// The public half of a credential, sent as `X-Api-Id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApiId(String);

impl ApiId {
    /// Wraps an id as it was issued or sent.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is 1 to {SN_BYTES_MAX} letters, digits, '-', '_' or '.', got {0:?}")]
pub struct InvalidSn(pub String);

fn check_sn(text: &str) -> Result<(), InvalidSn> {
    let fits = (1..=SN_BYTES_MAX).contains(&text.len());
    let clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits && clean {
        return Ok(());
    }
    Err(InvalidSn(text.chars().take(SN_BYTES_MAX).collect()))
}

macro_rules! sn {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl TryFrom<String> for $name {
            type Error = InvalidSn;

            fn try_from(text: String) -> Result<Self, InvalidSn> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(sn: $name) -> Self {
                sn.0.as_ref().to_owned()
            }
        }

        impl $name {
            /// Takes a serial number from outside.
            ///
            /// # Errors
            /// When it is empty, too long, or could not stand as one level of an MQTT topic.
            pub fn parse(text: &str) -> Result<Self, InvalidSn> {
                check_sn(text)?;
                Ok(Self(text.into()))
            }

            /// The serial number as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

sn!(
    /// Serial number of any device: gateway or aircraft.
    DeviceSn
);
sn!(
    /// Serial number of a gateway (dock or remote controller): the device that holds the connection.
    GatewaySn
);

impl GatewaySn {
    /// The same serial number, seen as a device.
    #[must_use]
    pub fn to_device(&self) -> DeviceSn {
        DeviceSn(self.0.clone())
    }
}

impl DeviceSn {
    /// The same serial number, seen as a gateway.
    #[must_use]
    pub fn to_gateway(&self) -> GatewaySn {
        GatewaySn(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_always_one_safe_topic_level() {
        for bad in ["", "a/b", "+", "#", "a b", "a\u{0}", "é", &"x".repeat(65)] {
            assert!(GatewaySn::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["4TADL210010014", "SN_DOCK_FIXTURE", "a.b-c"] {
            assert_eq!(GatewaySn::parse(good).as_ref().map(GatewaySn::as_str), Ok(good));
        }
    }
}
