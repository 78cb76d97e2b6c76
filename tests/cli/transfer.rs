//! `tipserve caches export` and `import`.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rand::{RngCore as _, SeedableRng as _};
use tempfile::TempDir;

use crate::{
    fake::{Behaviour, Fake},
    run::{Ran, command, tipserve},
};

/// Some megabytes that nobody would guess.
fn content() -> Vec<u8> {
    let seed = rand::random();
    println!("seed {seed}");
    let mut content = vec![0; 3 << 20 | 17];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut content);
    content
}

fn exporting(behaviour: Behaviour) -> (Fake, TempDir) {
    let fake = Fake::with(behaviour);
    fake.add_cache("one", &["cat", "dog"]);
    (fake, TempDir::new().unwrap())
}

fn names(folder: &TempDir) -> Vec<String> {
    fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_file_goes_out_and_comes_back() {
    let export = content();
    let (fake, folder) = exporting(Behaviour {
        export: export.clone(),
        ..Behaviour::default()
    });
    let file = folder.path().join("one.safetensors");
    let path = file.to_str().unwrap();
    let out = tipserve(&fake, &["caches", "export", "one@1", path, "--json"])
        .expect(0)
        .json();
    assert_eq!(out["version"]["name"], "caches/one/versions/1");
    assert_eq!(out["file"], path);
    assert_eq!(out["size_bytes"], export.len());
    assert_eq!(fs::read(&file).unwrap(), export);
    assert_eq!(names(&folder), ["one.safetensors"]);
    // As any new file: others may read it, where the umask lets them.
    let usual = folder.path().join("usual");
    fs::write(&usual, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&file), mode(&usual));

    let args = ["caches", "import", path, "two", "--allow-other-bundle"];
    let ran = tipserve(&fake, &args).expect(0);
    assert!(ran.stdout.starts_with("imported two@1: "), "{ran:?}");
    let out = tipserve(&fake, &["caches", "import", path, "two", "--json"])
        .expect(0)
        .json();
    assert_eq!(out["version"]["version"], 2);
    assert_eq!(out["size_bytes"], export.len());
    {
        let state = fake.state();
        let (spec, file) = &state.imports[0];
        assert!(spec.allow_other_bundle && spec.etag.is_empty());
        assert_eq!(spec.size_bytes as usize, export.len());
        assert!(*file == export);
        assert!(!state.imports[1].0.allow_other_bundle);
    }
    let args = ["caches", "import", path, "two", "--if-etag", "new"];
    tipserve(&fake, &args).expect(6);
    tipserve(&fake, &["caches", "import", "/no/such/file", "two"]).expect(3);
    let root = folder.path().to_str().unwrap();
    tipserve(&fake, &["caches", "import", root, "two"]).expect(1);
}

#[test]
fn a_file_that_is_there_is_replaced_only_when_told() {
    let (fake, folder) = exporting(Behaviour::default());
    let file = folder.path().join("x");
    fs::write(&file, "precious").unwrap();
    let path = file.to_str().unwrap();
    let ran = tipserve(&fake, &["caches", "export", "one", path]).expect(1);
    assert!(ran.stderr.contains("--force"), "{ran:?}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    // Through a link, what it leads to.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let args = ["caches", "export", "one", link.to_str().unwrap(), "--force"];
    let ran = tipserve(&fake, &args).expect(0);
    assert!(ran.stdout.starts_with("exported one@1 to "), "{ran:?}");
    assert_eq!(fs::read(&file).unwrap(), b"a version");
    assert!(link.is_symlink());
    tipserve(&fake, &["caches", "export", "one", "/dev/null", "--force"]).expect(1);
    let nowhere = folder.path().join("no/such/folder/x");
    tipserve(
        &fake,
        &["caches", "export", "one", nowhere.to_str().unwrap()],
    )
    .expect(1);
    tipserve(&fake, &["caches", "export", "nope", "nope.safetensors"]).expect(3);
}

#[test]
fn a_transfer_that_is_cut_off_leaves_nothing() {
    let (fake, folder) = exporting(Behaviour {
        export: content(),
        export_lacks: 1,
        ..Behaviour::default()
    });
    let file = folder.path().join("x");
    let args = ["caches", "export", "one", file.to_str().unwrap()];
    let ran = tipserve(&fake, &args).expect(1);
    assert!(
        ran.stderr
            .contains("promised 3145745 bytes and sent 3145744"),
        "{ran:?}"
    );
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[test]
fn standard_output_takes_the_bytes_alone() {
    let export = content();
    let (fake, _folder) = exporting(Behaviour {
        export: export.clone(),
        ..Behaviour::default()
    });
    let ran = command(&fake, &["caches", "export", "one", "-"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{:?}", ran.stderr);
    assert!(ran.stdout == export);
    assert!(String::from_utf8_lossy(&ran.stderr).contains("exported one@1"));
    let args = ["caches", "export", "one", "-", "--json"];
    tipserve(&fake, &args).expect(2);
}

#[test]
fn a_refused_import_says_why() {
    let (fake, folder) = exporting(Behaviour {
        refuses_imports: true,
        ..Behaviour::default()
    });
    let file = folder.path().join("x");
    // More than the connection takes unread.
    fs::write(&file, vec![0; 64 << 20]).unwrap();
    let ran = Ran::of(
        command(&fake, &["caches", "import", file.to_str().unwrap(), "two"])
            .output()
            .unwrap(),
    )
    .expect(1);
    assert!(ran.stderr.contains("another bundle made it"), "{ran:?}");
    assert!(fake.state().imports.is_empty());
}
