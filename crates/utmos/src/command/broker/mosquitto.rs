//! Mosquitto's configuration, rules and passwords.

use std::{collections::BTreeSet, fmt::Write, fs, net::SocketAddr, path::Path};

use anyhow::Context;
use utmos_core::credential::Secret;
use utmos_server::config::Mqtt;

use super::{
    Known, MosquittoArgs,
    access::{Access, Grant},
    folder::{Folder, Mode},
    password_file::PasswordFile,
    told,
};
use crate::{issue, output};

const CONF: &str = "utmos.conf";
const ACL: &str = "utmos.acl";
const PASSWORDS: &str = "utmos.passwords";
const NEW_PASSWORDS: &str = "new-passwords.txt";
const SERVER_PASSWORD: &str = "server.password";
const PORT: u16 = 1883;

/// Writes it, or prints what is no secret.
pub fn write(known: &Known, args: &MosquittoArgs) -> anyhow::Result<()> {
    let acl = acl(&known.access);
    let Some(out) = &args.out else {
        let conf = conf(known, args, None)?;
        output::line(format_args!("{conf}\n# {ACL}\n{}", acl.trim_end()));
        return Ok(());
    };
    let folder = Folder::open(out)?;
    let conf = conf(known, args, Some(&folder))?;
    // Passwords first: rules for users who are not there yet harm nobody, and neither does the other way round.
    let mut issued = Vec::new();
    if args.new_passwords {
        issued = issue_passwords(known, args, &folder)?;
    }
    folder.write(ACL, &acl, Mode::Shared)?;
    folder.write(CONF, &conf, Mode::Shared)?;
    told(format_args!(
        "{}: {CONF}, {ACL} ({} docks and remote controllers)",
        folder.path("").display(),
        known.access.gateways.len()
    ));
    if args.client_ca_file.is_none() {
        tell_of_passwords(known, &folder)?;
    }
    told(
        "Mosquitto takes rules and passwords with: kill -HUP (systemctl reload mosquitto); the rest when it is restarted.",
    );
    if args.show_passwords {
        for (user, password) in &issued {
            output::line(format_args!("{user} {}", password.expose()));
        }
    }
    Ok(())
}

fn conf(known: &Known, args: &MosquittoArgs, folder: Option<&Folder>) -> anyhow::Result<String> {
    let port = match &known.config.mqtt {
        Mqtt::External(broker) => broker.port,
        Mqtt::Embedded(_) => PORT,
    };
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], port)));
    let place = |name: &str| {
        folder.map_or_else(|| name.to_owned(), |folder| folder.path(name).display().to_string())
    };
    let mut text = format!(
        "# Written by `utmos broker config mosquitto`, anew at every run.\nlistener {} {}\nallow_anonymous false\n",
        listen.port(),
        listen.ip()
    );
    let mut file = |key: &str, option: &str, path: &Path| -> anyhow::Result<()> {
        let path = fs::canonicalize(path)
            .with_context(|| format!("{option} {} cannot be found", path.display()))?;
        writeln!(text, "{key} {}", path.display())?;
        Ok(())
    };
    if let (Some(cert), Some(key)) = (&args.cert_file, &args.key_file) {
        file("certfile", "--cert-file", cert)?;
        file("keyfile", "--key-file", key)?;
    }
    if let Some(authority) = &args.client_ca_file {
        file("cafile", "--client-ca-file", authority)?;
        text.push_str("require_certificate true\nuse_identity_as_username true\n");
    } else {
        writeln!(text, "password_file {}", place(PASSWORDS))?;
    }
    writeln!(text, "acl_file {}", place(ACL))?;
    text.push_str(
        "set_tcp_nodelay true\n\
         # A message that is kept for a session which is away can only do harm. Mosquitto keeps some whatever is set here, and\n\
         # drops them when they expire: keep mqtt.external.protocol at \"auto\" or \"5\".\n\
         persistence false\n\
         persistent_client_expiration 1h\n\
         # Messages to one client that may be on their way, and behind them: the server takes those of all devices.\n\
         max_inflight_messages 1000\n\
         max_queued_messages 10000\n",
    );
    Ok(text)
}

fn acl(access: &Access) -> String {
    let mut text = "# Written by `utmos broker config mosquitto`, anew at every run. Who is not here reaches nothing.\n".to_owned();
    for Grant { user, publish, subscribe } in access.grants() {
        text.push_str(&format!("\nuser {user}\n"));
        let read: BTreeSet<_> = subscribe.iter().collect();
        for topic in publish {
            let may = if read.contains(topic) { "readwrite" } else { "write" };
            text.push_str(&format!("topic {may} {topic}\n"));
        }
        for topic in subscribe.iter().filter(|topic| !publish.contains(topic)) {
            text.push_str(&format!("topic read {topic}\n"));
        }
    }
    text
}

/// Gives a password to whoever has none, and drops users that are gone.
fn issue_passwords(
    known: &Known,
    args: &MosquittoArgs,
    folder: &Folder,
) -> anyhow::Result<Vec<(String, Secret)>> {
    let mut file = read_passwords(folder)?;
    let users: BTreeSet<&str> = known.access.grants().map(|grant| grant.user.as_str()).collect();
    let gone = file.retain(|user| users.contains(user));
    if !gone.is_empty() {
        told(format_args!("no longer let in: {}", gone.join(", ")));
    }
    let server = known.access.server.user.as_str();
    let mut issued = Vec::new();
    for gateway in &known.gateways {
        let sn = gateway.sn.as_str();
        if !file.has(sn) || args.renew.contains(&gateway.sn) {
            let password = issue::mqtt_password()?;
            file.put(sn, &password)?;
            issued.push((sn.to_owned(), password));
        }
    }
    let configured = match &known.config.mqtt {
        Mqtt::External(broker) => broker.password_file.as_deref(),
        Mqtt::Embedded(_) => None,
    };
    let own = folder.path(SERVER_PASSWORD);
    let is_elsewhere = configured.is_some_and(|file| file != own && file.exists());
    if let (true, Some(configured)) = (is_elsewhere, configured) {
        // It may have been changed since, so it is taken over at every run.
        let text = fs::read_to_string(configured).with_context(|| {
            format!("mqtt.external.password_file {} cannot be read", configured.display())
        })?;
        file.put(server, &Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))?;
    } else if !file.has(server) {
        let password = issue::mqtt_password()?;
        folder.write(SERVER_PASSWORD, &format!("{}\n", password.expose()), Mode::Secret)?;
        file.put(server, &password)?;
        told(format_args!(
            "the server's own: set mqtt.external.username = {server:?} and mqtt.external.password_file = {:?}",
            own.display().to_string()
        ));
    }
    // What is shown must be there before it counts, or nobody would ever know it.
    if !issued.is_empty() && !args.show_passwords {
        let lines: String =
            issued.iter().map(|(sn, password)| format!("{sn} {}\n", password.expose())).collect();
        folder.append_secret(NEW_PASSWORDS, &lines)?;
        told(format_args!(
            "{} new passwords in {}: type them into the devices, then delete it",
            issued.len(),
            folder.path(NEW_PASSWORDS).display()
        ));
    }
    folder.write(PASSWORDS, &file.to_text(), Mode::Secret)?;
    Ok(issued)
}

fn read_passwords(folder: &Folder) -> anyhow::Result<PasswordFile> {
    let Some(text) = folder.read(PASSWORDS)? else { return Ok(PasswordFile::default()) };
    PasswordFile::parse(&text).with_context(|| folder.path(PASSWORDS).display().to_string())
}

fn tell_of_passwords(known: &Known, folder: &Folder) -> anyhow::Result<()> {
    let file = read_passwords(folder)?;
    let without = known.access.grants().filter(|grant| !file.has(&grant.user)).count();
    if without > 0 {
        told(format_args!(
            "{without} users have no password in {}: make them with --new-passwords, or with mosquitto_passwd",
            folder.path(PASSWORDS).display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::access;
    use super::*;

    #[test]
    fn every_user_has_its_own_topics_by_name() {
        let acl = acl(&access());
        for line in [
            "user utmos\n",
            "topic readwrite thing/product/+/services\n",
            "topic write thing/product/+/events_reply\n",
            "topic read thing/product/+/osd\n",
            "user D1\ntopic write sys/product/D1/status\n",
            "topic write thing/product/A1/osd\n",
            "topic read thing/product/D2/services\n",
        ] {
            assert!(acl.contains(line), "{line}\n{acl}");
        }
        let (_, of_d2) = acl.split_once("user D2\n").unwrap_or_default();
        assert!(!of_d2.contains("D1") && !of_d2.contains("A1") && !of_d2.contains('+'), "{of_d2}");
        assert!(!acl.contains("pattern"));
    }
}
