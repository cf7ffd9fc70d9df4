//! A small disk of its own for a place's data: a tmpfs that is mounted over the folder.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::place::Place;

/// A disk under a place's data. It goes with this.
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Puts the data of a place on a disk of so many MiB. Answers why not, where the system does not allow it.
    pub fn under(place: &Place, mib: u32) -> Result<Self, String> {
        Self::beneath(place.data_dir(), mib)
    }

    /// Puts a folder with all that is in it, and whose it is, on such a disk. No file of it may be open.
    pub fn beneath(folder: PathBuf, mib: u32) -> Result<Self, String> {
        let before = folder.with_extension("before");
        fs::rename(&folder, &before).unwrap();
        let disk = match Self::at(folder.clone(), mib) {
            Ok(disk) => disk,
            Err(why) => {
                fs::rename(&before, &folder).unwrap();
                return Err(why);
            }
        };
        run("cp", &["--archive", &format!("{}/.", text(&before)), text(&folder)]).unwrap();
        Ok(disk)
    }

    /// Makes a folder with a disk of so many MiB under it.
    pub fn at(folder: PathBuf, mib: u32) -> Result<Self, String> {
        fs::create_dir(&folder).unwrap();
        let size = format!("size={mib}m,mode=700");
        if let Err(why) = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&folder)]) {
            fs::remove_dir(&folder).unwrap();
            return Err(why);
        }
        Ok(Self { folder })
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let mut block = vec![1; 1 << 16];
        while !block.is_empty() {
            // Smaller and smaller, until not one byte is left.
            match ballast.write(&block) {
                Ok(written) if written == block.len() => {}
                Ok(_) | Err(_) => block.truncate(block.len() / 2),
            }
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// Lets nobody write to it, or somebody again. No file on it may be open for writing.
    pub fn make_read_only(&self, read_only: bool) {
        let how = if read_only { "remount,ro" } else { "remount,rw" };
        run("mount", &["-o", how, text(&self.folder)]).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server may still have files on it.
        let _gone = run("umount", &["-l", text(&self.folder)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a program of the system. Answers what it said when it did not go well.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|err| format!("{program}: {err}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
