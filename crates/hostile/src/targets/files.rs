//! Files that whoever runs the server writes: the configuration, and changes to the catalogue.

use std::path::Path;

use utmos_server::config::{Config, ConfigErrors, Layers, Loaded, Origin};

use super::{CATALOGUE, is_told};

/// Begins the assignments after a configuration file.
const ASSIGNMENTS: &str = "\n[--set]\n";
/// Stands for whatever is secret.
const SECRET: &str = "s3cr3t-of-the-app";

/// Reads changes to the catalogue. What comes of it is a catalogue like the first.
pub fn catalogue_override(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let changed = match CATALOGUE.clone().with_override(text) {
        Ok(changed) => changed,
        Err(refused) => return is_told(&refused.to_string()),
    };
    for method in changed.methods() {
        let known = CATALOGUE.method(&method.name).map(|known| format!("{known:?}"));
        if known.is_some_and(|known| known == format!("{method:?}")) {
            continue;
        }
        assert!((1..=300).contains(&method.timeout.as_secs()), "{}", method.name);
        assert!((1..=86_400).contains(&method.silence.as_secs()), "{}", method.name);
        let example = method.check(method.example());
        assert!(example.is_ok(), "{}: its own example does not pass", method.name);
        assert!(method.payload_schema().is_object() && method.reply_schema().is_object());
        let _masked = method.mask(method.example());
        if let Some(abort) = &method.abort {
            assert!(changed.method(&abort.method).is_some());
        }
    }
    let again = changed.clone().with_override(text);
    let again = again.unwrap_or_else(|err| panic!("a second time it is refused: {err}"));
    assert_eq!(again.methods().count(), changed.methods().count());
}

/// Reads a configuration file, and assignments on top.
pub fn config(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (file, assignments) = text.split_once(ASSIGNMENTS).unwrap_or((&text, ""));
    let load = |file: &str| {
        Config::load(
            Layers::new()
                .environment([("UTMOS_DJI_APP_KEY".to_owned(), SECRET.to_owned())])
                .file(Path::new("utmos.toml"), file)
                .assignments("--set", assignments.lines()),
        )
    };
    match load(file) {
        Ok(loaded) => is_loaded(&loaded),
        Err(errors) => is_refused(&errors, file),
    }
}

fn is_loaded(loaded: &Loaded) {
    let config = &loaded.config;
    assert!((1024..=16 * 1024 * 1024).contains(&config.http.body_bytes_max));
    assert!((1..=1_000_000).contains(&config.http.connections_max));
    assert!(!config.data_dir.as_os_str().is_empty());
    // What `utmos config check` prints is the same configuration again.
    let printed = loaded.rows.iter().filter(|row| row.shown != "(secret)");
    let mut written = String::new();
    for row in printed {
        assert!(!row.shown.contains(SECRET), "a secret is shown");
        written.push_str(&format!("{} = {}\n", row.key, row.shown));
    }
    let again = Config::load(Layers::new().file(Path::new("printed.toml"), &written));
    let again = again.unwrap_or_else(|errors| panic!("{errors}\n{written}"));
    for (one, other) in loaded.rows.iter().zip(&again.rows) {
        assert_eq!(one.key, other.key);
        let is_secret = [&one.shown, &other.shown].iter().any(|shown| *shown == "(secret)");
        assert!(
            one.shown == other.shown || is_secret,
            "{}: {} {}",
            one.key,
            one.shown,
            other.shown
        );
    }
}

fn is_refused(errors: &ConfigErrors, file: &str) {
    assert!(!errors.0.is_empty());
    for error in &errors.0 {
        is_told(&error.problem);
        if error.key.is_empty() {
            assert!(matches!(error.origin, Origin::File(_)), "{error}");
            let line = error.problem.strip_prefix("is no TOML: line ");
            let line = line.and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
            assert!(line.is_some_and(|line| line <= file.matches('\n').count() + 1), "{error}");
        }
    }
    assert!(!errors.to_string().contains(SECRET), "a secret is told");
}
