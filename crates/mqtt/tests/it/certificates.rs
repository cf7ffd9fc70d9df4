//! TLS with certificates on both sides, against Mosquitto: what goes wrong is told with the setting that mends it.
//!
//! Needs openssl, and faketime for certificates that have expired.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test stops where its assumption fails"
)]

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use utmos_mqtt::{ClientCertificate, ClientConfig, ClientTls};

use super::support::{Mosquitto, config, is_confirmed, send, start, until, up};

/// Two authorities and what they sign.
struct Pki(tempfile::TempDir);

impl Pki {
    fn new() -> Self {
        let pki = Self(tempfile::tempdir().unwrap());
        for ca in ["ca", "other"] {
            pki.openssl(
                &format!("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"),
                false,
            );
        }
        pki
    }

    /// `name.pem` and `name.key`, made out to the user or host `cn`.
    fn sign(&self, ca: &str, name: &str, cn: &str, is_expired: bool) {
        let extensions =
            format!("subjectAltName=DNS:{cn}\nextendedKeyUsage=serverAuth,clientAuth\n");
        std::fs::write(self.file(&format!("{name}.ext")), extensions).unwrap();
        self.openssl(
            &format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={cn} -keyout {name}.key -out {name}.csr"),
            false,
        );
        self.openssl(
            &format!("x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 30 -extfile {name}.ext -out {name}.pem"),
            is_expired,
        );
    }

    fn openssl(&self, arguments: &str, long_ago: bool) {
        let mut command = if long_ago {
            let mut command = Command::new("faketime");
            command.args(["2020-01-01 00:00:00", "openssl"]);
            command
        } else {
            Command::new("openssl")
        };
        let done = command.args(arguments.split(' ')).current_dir(self.0.path()).output();
        let done = done.expect(
            "openssl or faketime is not installed; run: apt-get install -y openssl faketime",
        );
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn certificate(&self, name: &str) -> ClientCertificate {
        ClientCertificate {
            cert_file: self.file(&format!("{name}.pem")),
            key_file: self.file(&format!("{name}.key")),
        }
    }

    /// A broker that shows `name` and wants a certificate of `ca`, whose common name is the user name.
    async fn broker(&self, name: &str) -> Mosquitto {
        let mut more =
            String::from("user root\nrequire_certificate true\nuse_identity_as_username true\n");
        for (key, file) in [
            ("cafile", "ca.pem".to_owned()),
            ("certfile", format!("{name}.pem")),
            ("keyfile", format!("{name}.key")),
            ("acl_file", "acl".to_owned()),
        ] {
            writeln!(more, "{key} {}", self.file(&file).display()).unwrap();
        }
        let rules = "pattern readwrite thing/product/%u/osd\nuser utmos\ntopic readwrite thing/#\n";
        std::fs::write(self.file("acl"), rules).unwrap();
        Mosquitto::start_with(&more).await
    }

    fn client(&self, port: u16, own: Option<&str>) -> ClientConfig {
        let mut settings = config(port, "D1", &[]);
        (settings.username, settings.password) = (None, None);
        settings.tls = Some(ClientTls {
            ca_file: Some(self.file("ca.pem")),
            server_name: Some("localhost".to_owned()),
            client_certificate: own.map(|own| self.certificate(own)),
        });
        settings
    }
}

#[tokio::test]
async fn a_certificate_is_the_login_and_its_name_the_user() {
    let pki = Pki::new();
    pki.sign("ca", "broker", "localhost", false);
    pki.sign("ca", "server", "utmos", false);
    pki.sign("ca", "dock", "D1", false);
    let broker = pki.broker("broker").await;
    let mut settings = pki.client(broker.port, Some("server"));
    "server".clone_into(&mut settings.client_id);
    settings.subscriptions = vec![("thing/product/+/osd".to_owned(), utmos_mqtt::Qos::AtLeastOnce)];
    let server = up(settings).await;
    let dock = up(pki.client(broker.port, Some("dock"))).await;
    // Another's topic is not for it, whatever the broker says to its face.
    let _refused = send(&dock.out, "thing/product/D2/osd", "forged").await;
    let sent = send(&dock.out, "thing/product/D1/osd", "own").await;
    assert!(is_confirmed(&sent), "{sent:?} {:?} {:?}", dock.told.downs(), server.told.downs());
    until("its own", || !server.told.messages().is_empty()).await;
    assert_eq!(server.told.messages(), ["thing/product/D1/osd own"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_with_the_setting() {
    let pki = Pki::new();
    pki.sign("ca", "broker", "localhost", false);
    pki.sign("ca", "old-broker", "localhost", true);
    pki.sign("ca", "dock", "D1", false);
    pki.sign("ca", "old", "D1", true);
    pki.sign("other", "foreign", "D1", false);
    let (broker, old_broker) = (pki.broker("broker").await, pki.broker("old-broker").await);
    let good = pki.client(broker.port, Some("dock"));
    let with = |change: &dyn Fn(&mut ClientTls)| {
        let mut settings = good.clone();
        change(settings.tls.as_mut().unwrap());
        settings
    };
    let own = |name: &str| {
        let certificate = pki.certificate(name);
        with(&|tls: &mut ClientTls| tls.client_certificate = Some(certificate.clone()))
    };
    let mut unmatched = pki.certificate("dock");
    unmatched.key_file = pki.file("old.key");
    let mut missing = pki.certificate("dock");
    missing.key_file = pki.file("nothing.key");
    for (case, settings, expected) in [
        ("no certificate", with(&|tls| tls.client_certificate = None), "client_cert_file"),
        (
            "one of another authority",
            own("foreign"),
            "not signed by the authority that the broker knows",
        ),
        ("an expired one", own("old"), "has expired; put a new one there"),
        (
            "a broker of another authority",
            with(&|tls| tls.ca_file = Some(pki.file("other.pem"))),
            "not signed by the authority in ca_file",
        ),
        (
            "public authorities",
            with(&|tls| tls.ca_file = None),
            "name the one that did with ca_file",
        ),
        (
            "another host",
            with(&|tls| tls.server_name = Some("elsewhere.example".to_owned())),
            "not made out to `elsewhere.example`",
        ),
        (
            "an expired broker",
            pki.client(old_broker.port, Some("dock")),
            "the broker's certificate has expired",
        ),
        (
            "another's key",
            with(&|tls| tls.client_certificate = Some(unmatched.clone())),
            "client_key_file",
        ),
        (
            "no key",
            with(&|tls| tls.client_certificate = Some(missing.clone())),
            "nothing.key cannot be read",
        ),
        ("no authority", with(&|tls| tls.ca_file = Some(pki.file("acl"))), "holds no certificate"),
    ] {
        let client = start(settings);
        until(case, || !client.told.downs().is_empty()).await;
        let reason = &client.told.downs()[0];
        assert!(reason.contains(expected), "{case}: {reason}");
        assert_eq!(client.client.health().trouble().as_ref(), Some(reason), "{case}");
    }
    let client = up(good).await;
    assert_eq!(client.client.health().trouble(), None);
}
