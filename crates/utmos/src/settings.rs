//! Finds the configuration: which file, which flags, and in what order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use utmos_server::config::{Config, Layers, Loaded};

use crate::environment;

/// The configuration file that is read without being named.
const FILE: &str = "utmos.toml";
/// Where the demo keeps its data.
pub const DEMO_DIR: &str = "./utmos-demo";

/// Flags of every subcommand that needs the server's configuration.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigArgs {
    /// Configuration file [default: ./utmos.toml where there is one]
    #[arg(long, value_name = "FILE", env = "UTMOS_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Set any key, such as http.listen=0.0.0.0:8080; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Folder with the database and its key (data_dir)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the HTTP API (http.listen)
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Address of the embedded MQTT broker (mqtt.embedded.listen)
    #[arg(long, value_name = "ADDRESS")]
    mqtt_listen: Option<String>,
    /// error, warn, info, debug or trace (log.level)
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

/// What the configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Real work.
    Work,
    /// `serve --demo`: keeps its hands off everything real. No file is read unless it is named, and only a flag can
    /// move the data away from the demo's own folder.
    Demo,
}

impl ConfigArgs {
    /// Reads and checks everything.
    pub fn load(&self, purpose: Purpose) -> anyhow::Result<Loaded> {
        Ok(Config::load(self.layers(purpose, Path::new("."), environment::ours())?)?)
    }

    fn layers(
        &self,
        purpose: Purpose,
        dir: &Path,
        variables: Vec<(String, String)>,
    ) -> anyhow::Result<Layers> {
        let mut layers = Layers::new();
        if purpose == Purpose::Demo {
            layers = layers.flag("--demo", "log.level", "warn");
        }
        if let Some((path, text)) = self.file(purpose, dir)? {
            layers = layers.file(&path, &text);
        }
        layers = layers.environment(variables);
        if purpose == Purpose::Demo {
            for (key, value) in [
                ("data_dir", DEMO_DIR),
                ("store.path", ""),
                ("store.url", ""),
                ("store.master_key_file", ""),
                ("mqtt.mode", "embedded"),
            ] {
                layers = layers.flag("--demo", key, value);
            }
        }
        layers = layers.assignments("--set", self.assignments.iter().map(String::as_str));
        let named = [
            ("--data-dir", "data_dir", &self.data_dir),
            ("--http-listen", "http.listen", &self.http_listen),
            ("--mqtt-listen", "mqtt.embedded.listen", &self.mqtt_listen),
            ("--log-level", "log.level", &self.log_level),
        ];
        for (flag, key, value) in named {
            if let Some(value) = value {
                layers = layers.flag(flag, key, value);
            }
        }
        Ok(layers)
    }

    fn file(&self, purpose: Purpose, dir: &Path) -> anyhow::Result<Option<(PathBuf, String)>> {
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| {
                format!("the configuration file {} cannot be read", path.display())
            })
        };
        if let Some(path) = &self.config {
            return Ok(Some((path.clone(), read(path)?)));
        }
        let path = dir.join(FILE);
        if purpose == Purpose::Demo || !path.exists() {
            return Ok(None);
        }
        Ok(Some((PathBuf::from(FILE), read(&path)?)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn load(args: &ConfigArgs, purpose: Purpose, dir: &Path, variables: &[(&str, &str)]) -> Loaded {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(args.layers(purpose, dir, variables).unwrap()).unwrap()
    }

    #[test]
    fn the_file_in_the_working_directory_counts_unless_another_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "data_dir = \"here\"").unwrap();
        fs::write(dir.path().join("other.toml"), "data_dir = \"other\"").unwrap();
        let data_dir =
            |args: &ConfigArgs| load(args, Purpose::Work, dir.path(), &[]).config.data_dir;
        assert_eq!(data_dir(&ConfigArgs::default()), Path::new("here"));
        let named =
            ConfigArgs { config: Some(dir.path().join("other.toml")), ..ConfigArgs::default() };
        assert_eq!(data_dir(&named), Path::new("other"));
        let missing =
            ConfigArgs { config: Some(dir.path().join("missing.toml")), ..ConfigArgs::default() };
        let err = missing.layers(Purpose::Work, dir.path(), Vec::new()).err().unwrap();
        assert!(format!("{err:#}").contains("missing.toml"));
    }

    #[test]
    fn a_named_flag_beats_an_assignment() {
        let args = ConfigArgs {
            assignments: vec!["data_dir=a".to_owned(), "http.listen=127.0.0.1:9".to_owned()],
            data_dir: Some("b".to_owned()),
            ..ConfigArgs::default()
        };
        let loaded = load(&args, Purpose::Work, Path::new("/nowhere"), &[]);
        assert_eq!(loaded.config.data_dir, Path::new("b"));
        assert_eq!(loaded.config.http.listen.port(), 9);
    }

    #[test]
    fn the_demo_does_not_touch_what_the_file_or_the_environment_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "data_dir = \"real\"\n[log]\nlevel = \"debug\"").unwrap();
        let real = [
            ("UTMOS_STORE_PATH", "real.sqlite"),
            ("UTMOS_DATA_DIR", "real"),
            ("UTMOS_MQTT_MODE", "external"),
        ];
        let loaded = load(&ConfigArgs::default(), Purpose::Demo, dir.path(), &real);
        assert_eq!(loaded.config.store.path, Path::new("./utmos-demo/utmos.sqlite"));
        assert_eq!(loaded.config.log.level.to_string(), "WARN");
        let moved = ConfigArgs { data_dir: Some("mine".to_owned()), ..ConfigArgs::default() };
        let loaded = load(&moved, Purpose::Demo, dir.path(), &real);
        assert_eq!(loaded.config.store.path, Path::new("mine/utmos.sqlite"));
    }
}
