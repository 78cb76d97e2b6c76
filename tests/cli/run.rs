//! Running the binary, and the folders that it is run on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::fake::Fake;

/// The binary, told where the server is.
pub fn command(fake: &Fake, args: &[&str]) -> Command {
    let mut command = Command::new(crate::BINARY);
    command
        .args(args)
        .env("TIPSERVE_SERVER", fake.address())
        .stdin(Stdio::null());
    command
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The one JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON lines on standard output.
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// Runs the binary to its end.
pub fn tipserve(fake: &Fake, args: &[&str]) -> Ran {
    Ran::of(command(fake, args).output().unwrap())
}

/// A folder of pictures for the fake server: "IMG c" is of class c.
pub struct Folder {
    pub root: TempDir,
}

impl Folder {
    /// `counts[c]` pictures of each class, in folders named by `names`.
    pub fn new(names: &[&str], counts: &[usize]) -> Self {
        let folder = Self {
            root: TempDir::new().unwrap(),
        };
        for (class, (name, count)) in names.iter().zip(counts).enumerate() {
            fs::create_dir(folder.path().join(name)).unwrap();
            for number in 0..*count {
                folder.write(&format!("{name}/{number:03}.jpg"), &format!("IMG {class}"));
            }
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn str(&self) -> &str {
        self.path().to_str().unwrap()
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}
