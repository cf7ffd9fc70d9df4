//! Who may do what: credentials, permissions, and the secrets behind signatures.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    id::{ApiId, DeviceSn, TenantId},
    method::CompleteOn,
    time::Timestamp,
};

/// Clock skew a credential tolerates unless it says otherwise.
pub const CLOCK_SKEW_DEFAULT: Duration = Duration::from_secs(300);
/// How long a nonce is remembered at least, unless the credential says otherwise.
pub const REPLAY_WINDOW_DEFAULT: Duration = Duration::from_secs(300);

/// A secret as text. `Debug` prints nothing, memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Shows the secret to the one place that must have it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The key that signs with it.
    #[must_use]
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::new(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// HMAC-SHA256 keyed once and cloned per signature. Compares only in constant time.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Keys the HMAC.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        // HMAC takes keys of every length; the error cannot occur, and an empty key is as wrong as any other.
        Self(Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default())))
    }

    /// Signs `text`.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.finalize().into_bytes().into()
    }

    /// Whether `signature` is this key's over `text`, in constant time.
    #[must_use]
    pub fn verifies(&self, text: &[u8], signature: &[u8; 32]) -> bool {
        let mut mac = self.0.clone();
        mac.update(text);
        mac.verify_slice(signature).is_ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a credential may do (API.md section 2).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission { $($(#[$doc])* $name,)* }

        impl Permission {
            /// Every permission.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The permission as it is written.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

permissions! {
    /// Create and cancel commands.
    CommandCreate = "open:command:create",
    /// Read commands, timelines, the catalogue and unmatched responses.
    CommandRead = "open:command:read",
    /// List device requests.
    DeviceRequestRead = "open:device-request:read",
    /// Answer device requests.
    DeviceRequestCreate = "open:device-request:create",
    /// Presign objects.
    ObjectCreate = "open:object:create",
    /// Create object configuration.
    ObjectConfigCreate = "open:object-config:create",
    /// Read object configuration.
    ObjectConfigRead = "open:object-config:read",
    /// Change object configuration.
    ObjectConfigUpdate = "open:object-config:update",
    /// Create callbacks.
    CallbackCreate = "open:callback:create",
    /// Read callbacks.
    CallbackRead = "open:callback:read",
    /// Change callbacks.
    CallbackUpdate = "open:callback:update",
    /// Disable callbacks.
    CallbackDisable = "open:callback:disable",
    /// Read devices.
    DeviceRead = "open:device:read",
    /// Add devices.
    DeviceCreate = "open:device:create",
    /// Change devices.
    DeviceUpdate = "open:device:update",
    /// Read device events.
    EventRead = "open:event:read",
    /// Read telemetry.
    TelemetryRead = "open:telemetry:read",
    /// Open a remote-control session.
    DrcCreate = "open:drc:create",
}

impl Permission {
    /// Reads a permission.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|permission| permission.as_str() == text)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ready-made sets of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything inside the tenant.
    TenantAdmin,
    /// What an integration needs: commands, device requests, reading.
    IntegrationOperator,
    /// Reading only.
    Viewer,
}

impl Role {
    /// Every role with its name.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::TenantAdmin, "tenant_admin"),
        (Self::IntegrationOperator, "integration_operator"),
        (Self::Viewer, "viewer"),
    ];

    /// Reads a role.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(role, _)| role)
    }

    /// What it may do.
    #[must_use]
    pub fn permissions(self) -> BTreeSet<Permission> {
        let may = |permission: &Permission| match self {
            Self::TenantAdmin => true,
            Self::IntegrationOperator => {
                permission.as_str().ends_with(":read")
                    || matches!(
                        permission,
                        Permission::CommandCreate
                            | Permission::DeviceRequestCreate
                            | Permission::ObjectCreate
                            | Permission::DrcCreate
                    )
            }
            Self::Viewer => permission.as_str().ends_with(":read"),
        };
        Permission::ALL.iter().copied().filter(may).collect()
    }
}

/// Whether a credential works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CredentialStatus {
    /// It works.
    Active,
    /// It is refused until it is enabled again.
    Disabled,
    /// It is refused for good.
    Deleted,
}

/// One of a credential's secrets. Two stand side by side while one takes over from the other.
#[derive(Debug, Clone)]
pub struct CredentialSecret {
    /// The API Key.
    pub secret: Secret,
    /// When it stops working; `None` for the current one.
    pub valid_until: Option<Timestamp>,
}

/// A credential as it is kept.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The public half.
    pub api_id: ApiId,
    /// Whose it is.
    pub tenant: TenantId,
    /// For people.
    pub name: String,
    /// Whether it works.
    pub status: CredentialStatus,
    /// What it may do.
    pub permissions: BTreeSet<Permission>,
    /// How far the caller's clock may be off.
    pub allowed_clock_skew: Duration,
    /// How long a nonce is remembered at least.
    pub replay_window: Duration,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// Where it may be used from; empty = anywhere.
    pub ip_allow: Vec<IpRange>,
    /// Which devices it may touch; `None` = all of the tenant.
    pub devices: Option<BTreeSet<DeviceSn>>,
    /// What `complete_on` means when a request does not say.
    pub complete_on: CompleteOn,
    /// The secrets, newest first.
    pub secrets: Vec<CredentialSecret>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A range of IP addresses, such as `10.0.0.0/8` or `2001:db8::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    network: IpAddr,
    prefix: u8,
}

impl IpRange {
    /// Reads an address or a network in CIDR form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: IpAddr = address.parse().ok()?;
        let longest: u8 = if network.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(longest), |prefix| prefix.parse().ok())?;
        if prefix > longest {
            return None;
        }
        // A range of IPv4 addresses mapped into IPv6 is that range of IPv4 addresses.
        let mapped_prefix = if network.is_ipv6() { prefix.checked_sub(96) } else { None };
        match (network.to_canonical(), mapped_prefix) {
            (canonical @ IpAddr::V4(_), Some(prefix)) => Some(Self { network: canonical, prefix }),
            _ => Some(Self { network, prefix }),
        }
    }

    /// Whether `address` lies inside. An IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                u32::from(network) & mask == u32::from(address) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(network) & mask == u128::from(address) & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let secret = Secret::new("super-secret".to_owned());
        let shown = format!("{secret:?} {:?}", secret.signing_key());
        assert!(!shown.contains("super"), "{shown}");
    }

    #[test]
    fn roles_hold_what_their_names_say() {
        assert_eq!(Role::TenantAdmin.permissions().len(), Permission::ALL.len());
        let viewer = Role::Viewer.permissions();
        assert!(
            viewer.contains(&Permission::CommandRead)
                && !viewer.contains(&Permission::CommandCreate)
        );
        assert!(Role::IntegrationOperator.permissions().contains(&Permission::CommandCreate));
        assert!(!Role::IntegrationOperator.permissions().contains(&Permission::DeviceUpdate));
    }

    #[test]
    fn permissions_read_back() {
        for permission in Permission::ALL {
            assert_eq!(Permission::parse(permission.as_str()), Some(*permission));
        }
        assert_eq!(Permission::parse("open:command:*"), None);
    }

    #[test]
    fn address_ranges() {
        let inside = [
            ("10.0.0.0/8", "10.255.1.2"),
            ("0.0.0.0/0", "8.8.8.8"),
            ("::1", "::1"),
            ("10.0.0.1", "::ffff:10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.9.9.9"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
        ];
        let outside = [
            ("10.0.0.0/8", "11.0.0.1"),
            ("192.168.1.7", "192.168.1.8"),
            ("::/0", "1.2.3.4"),
            ("2001:db8::/32", "2001:db9::1"),
            ("::ffff:10.0.0.0/104", "11.0.0.1"),
        ];
        for (range, address) in inside {
            assert!(
                IpRange::parse(range).unwrap().contains(address.parse().unwrap()),
                "{range} {address}"
            );
        }
        for (range, address) in outside {
            assert!(
                !IpRange::parse(range).unwrap().contains(address.parse().unwrap()),
                "{range} {address}"
            );
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "x"] {
            assert!(IpRange::parse(bad).is_none(), "{bad}");
        }
    }
}
