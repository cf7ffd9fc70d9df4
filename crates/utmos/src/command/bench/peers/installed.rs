//! What npm installed, and the processes that are started of it.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};

use super::Peer;

/// Loaded before a peer's own script.
const NO_DELAY: &str = include_str!("installed/nodelay.js");

/// A folder with the peers' packages in it.
pub struct Installed {
    modules: PathBuf,
    /// Whether Nagle's algorithm stays on, as their MQTT client has it.
    nagle: bool,
    /// Each peer with the version of its first package.
    pub peers: Vec<(Peer, String)>,
}

impl Installed {
    /// Looks for these peers; names every one that is missing, and how it gets there.
    pub fn find(folder: &Path, peers: &[Peer], nagle: bool) -> anyhow::Result<Self> {
        let modules = folder.join("node_modules");
        let is_there = |package: &&str| modules.join(bare(package)).join("package.json").is_file();
        let missing: Vec<Peer> =
            peers.iter().copied().filter(|peer| !peer.packages().iter().all(is_there)).collect();
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|peer| peer.title()).collect();
            let mut packages: Vec<&str> = Vec::new();
            for package in missing.iter().flat_map(|peer| peer.packages()) {
                if !packages.contains(package) {
                    packages.push(package);
                }
            }
            bail!(
                "{} cannot be found in {} (--peers): npm install --prefix {} {}",
                names.join(" and "),
                folder.display(),
                folder.display(),
                packages.join(" ")
            );
        }
        let modules = modules.canonicalize()?;
        let of = |peer: &Peer| {
            let package = peer.packages().first().context("a peer without a package")?;
            anyhow::Ok((*peer, version(&modules.join(bare(package)))?))
        };
        let peers = peers.iter().map(of).collect::<anyhow::Result<_>>()?;
        Ok(Self { modules, nagle, peers })
    }

    /// A package's folder.
    pub fn package(&self, name: &str) -> PathBuf {
        self.modules.join(name)
    }

    /// Starts a script of a peer in `dir`.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        script: &Path,
        arguments: &[A],
        dir: &Path,
    ) -> anyhow::Result<Process> {
        let log = dir.join("peer.log");
        let (out, err) = (File::create(&log)?, File::options().append(true).open(&log)?);
        let mut node = Command::new(self.package("node").join("bin/node"));
        if !self.nagle {
            let file = dir.join("nodelay.js");
            std::fs::write(&file, NO_DELAY)?;
            node.arg("--require").arg(file);
        }
        let child = node
            .arg(script)
            .args(arguments)
            .current_dir(dir)
            // As those who run it for others do: it is faster so.
            .env("NODE_ENV", "production")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .context("Node.js cannot be started; npm may have been told to run no install scripts (--ignore-scripts)")?;
        Ok(Process { child, log })
    }
}

/// A package without its version.
fn bare(package: &str) -> &str {
    package.split_once('@').map_or(package, |(name, _)| name)
}

fn version(package: &Path) -> anyhow::Result<String> {
    let file = package.join("package.json");
    let text = std::fs::read_to_string(&file)?;
    let read: serde_json::Value = serde_json::from_str(&text)?;
    let version = read.get("version").and_then(serde_json::Value::as_str);
    Ok(version.with_context(|| format!("{} has no version", file.display()))?.to_owned())
}

/// A process of a peer. It ends with this.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails where it has ended.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        let Some(end) = self.child.try_wait()? else { return Ok(()) };
        let told = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = told.lines().rev().take(8).collect();
        bail!("it ended ({end}): {}", last.into_iter().rev().collect::<Vec<_>>().join(" / "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn install(folder: &Path, package: &str, version: &str) {
        let dir = folder.join("node_modules").join(package);
        std::fs::create_dir_all(&dir).unwrap();
        let text = serde_json::json!({"name": package, "version": version});
        std::fs::write(dir.join("package.json"), text.to_string()).unwrap();
    }

    #[test]
    fn a_peer_is_found_with_its_version_once_all_its_packages_are_there() {
        let folder = tempfile::tempdir().unwrap();
        install(folder.path(), "node-red", "5.0.7");
        let found = Installed::find(folder.path(), &[Peer::NodeRed], false);
        let told = found.err().unwrap().to_string();
        assert!(told.contains("Node-RED cannot be found in"), "{told}");
        let path = folder.path().display();
        let remedy = format!("npm install --prefix {path} node-red@5 node@22");
        assert!(told.contains(&remedy), "{told}");
        install(folder.path(), "node", "22.23.3");
        let found = Installed::find(folder.path(), &[Peer::NodeRed], false).unwrap();
        assert_eq!(found.peers, [(Peer::NodeRed, "5.0.7".to_owned())]);
    }
}
