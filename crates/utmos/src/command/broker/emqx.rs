//! EMQX 5: its built-in database can check the passwords that the devices have, since it hashes as we do: SHA-256 over a salt
//! and the password, where the salt is the serial number and a zero byte.

use std::path::Path;

use serde_json::json;
use utmos_core::device::Device;

use super::{
    Known,
    access::{Access, Grant},
    folder::{Folder, Mode},
    told,
};
use crate::output;

const CONF: &str = "emqx.conf";
const ACL: &str = "acl.conf";
const USERS: &str = "users.json";

/// Writes it, or prints what is no secret.
pub fn write(known: &Known, out: Option<&Path>) -> anyhow::Result<()> {
    let acl = acl(&known.access);
    let Some(out) = out else {
        output::line(format_args!("{}\n%% {ACL}\n{}", conf(ACL), acl.trim_end()));
        return Ok(());
    };
    let folder = Folder::open(out)?;
    folder.write(CONF, &conf(&folder.path(ACL).display().to_string()), Mode::Shared)?;
    folder.write(ACL, &acl, Mode::Shared)?;
    folder.write(USERS, &users(&known.gateways), Mode::Secret)?;
    let with = known.gateways.iter().filter(|gateway| gateway.mqtt_secret_hash.is_some()).count();
    told(format_args!(
        "{}: {CONF}, {ACL}, {USERS} ({with} of {} docks and remote controllers have a password)",
        folder.path("").display(),
        known.gateways.len()
    ));
    told(format_args!(
        "the server's user {:?} is yours to make in EMQX; see docs/outside-broker.md",
        known.access.server.user
    ));
    Ok(())
}

fn conf(acl: &str) -> String {
    format!(
        r#"# Written by `utmos broker config emqx`, anew at every run. To be included in EMQX's own configuration.
authentication = [
  {{
    mechanism = password_based
    backend = built_in_database
    user_id_type = username
    # The passwords in {USERS} are kept as the server keeps them.
    password_hash_algorithm {{ name = sha256, salt_position = prefix }}
  }}
]
authorization {{
  no_match = deny
  deny_action = ignore
  sources = [{{ type = file, enable = true, path = "{acl}" }}]
}}
# No session of MQTT 3.1.1 outlives its connection, and nothing is retained.
mqtt.session_expiry_interval = 0s
mqtt.retain_available = false
retainer.enable = false
"#
    )
}

fn acl(access: &Access) -> String {
    let mut text = "%% Written by `utmos broker config emqx`, anew at every run. Who is not here reaches nothing.\n".to_owned();
    for Grant { user, publish, subscribe } in access.grants() {
        for (action, topics) in [("publish", publish), ("subscribe", subscribe)] {
            let topics: Vec<_> = topics.iter().map(|topic| format!("{topic:?}")).collect();
            text.push_str(&format!(
                "{{allow, {{username, {user:?}}}, {action}, [{}]}}.\n",
                topics.join(", ")
            ));
        }
    }
    text.push_str("{deny, all}.\n");
    text
}

/// For `POST /api/v5/authentication/password_based:built_in_database/import_users`.
fn users(gateways: &[Device]) -> String {
    let users = gateways.iter().filter_map(|gateway| {
        let hash = gateway.mqtt_secret_hash?;
        Some(json!({
            "user_id": gateway.sn,
            "password_hash": hex::encode(hash),
            "salt": format!("{}\0", gateway.sn),
            "is_superuser": false,
        }))
    });
    format!("{:#}\n", serde_json::Value::Array(users.collect()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::Value;
    use sha2::{Digest, Sha256};
    use utmos_core::device::DeviceKind;
    use utmos_server::directory::mqtt_secret_hash;

    use super::super::access::tests::{access, device};
    use super::*;

    /// `hex(sha256(salt ++ password))`, as `salt_position = prefix` says.
    fn as_emqx_hashes(salt: &str, password: &str) -> String {
        hex::encode(Sha256::digest(format!("{salt}{password}")))
    }

    /// Two of the users in EMQX's documentation of `import_users`. Their passwords, which it does not tell, are like their names.
    #[test]
    fn what_emqx_documents_is_hashed_like_that() {
        for (password, salt, documented) in [
            (
                "mypassword1",
                "e378187547bf2d6f0545a3f441aa4d8a",
                "c5e46903df45e5dc096dc74657610dbee8deaacae656df88a1788f1847390242",
            ),
            (
                "mypassword3",
                "de1024f462fb83910fd13151bd4bd235",
                "b6c743545a7817ae8c8f624371d5f5f0373234bb0ff36b8ffbf19bce0e06ab75",
            ),
        ] {
            assert_eq!(as_emqx_hashes(salt, password), documented, "{password}");
        }
    }

    #[test]
    fn emqx_hashes_a_password_as_the_server_does() {
        let mut dock = device("D1", 1, DeviceKind::Dock);
        dock.mqtt_secret_hash = Some(mqtt_secret_hash(&dock.sn, b"a-password"));
        let mut without = device("D2", 1, DeviceKind::Dock);
        without.mqtt_secret_hash = None;
        let users: Value = serde_json::from_str(&users(&[dock, without])).unwrap();
        let [user] = users.as_array().unwrap().as_slice() else { panic!("{users}") };
        let hash = as_emqx_hashes(user["salt"].as_str().unwrap(), "a-password");
        assert_eq!(user["password_hash"], hash);
        assert_eq!(user["user_id"], "D1");
    }

    #[test]
    fn rules_are_terms_and_end_with_a_refusal() {
        let acl = acl(&access());
        let terms: Vec<_> = acl.lines().filter(|line| !line.starts_with("%%")).collect();
        assert!(terms.iter().all(|term| term.starts_with('{') && term.ends_with("}.")), "{acl}");
        assert_eq!(terms.last(), Some(&"{deny, all}."));
        assert!(
            terms.iter().any(|term| term.starts_with(r#"{allow, {username, "D2"}, subscribe, ["#)
                && !term.contains("A1"))
        );
    }
}
