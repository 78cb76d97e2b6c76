//! Pictures of a list that lie elsewhere: at addresses, or in the rows of a Parquet file.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    sync::Arc,
    thread,
};

use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{
        metadata::KeyValue, properties::WriterProperties, reader::FileReader as _,
        serialized_reader::SerializedFileReader, writer::SerializedFileWriter,
    },
    schema::parser::parse_message_type,
};
use tipserve_api::v1::{Example, input::Content};

use crate::{
    fake::Fake,
    run::{Folder, Ran, command, tipserve},
};

/// What the server got: each example's id, class and picture.
fn made_of(fake: &Fake, path: &Path, flags: &[&str]) -> Vec<(String, i32, Vec<u8>)> {
    let create = ["create", "c", "--from", path.to_str().unwrap()];
    tipserve(fake, &[&create[..], flags].concat()).expect(0);
    let examples = std::mem::take(&mut fake.state().examples);
    examples.into_iter().map(sent).collect()
}

fn sent(example: Example) -> (String, i32, Vec<u8>) {
    match example.input.unwrap().content {
        Some(Content::EncodedImage(bytes)) => {
            (example.example_id, example.class_index, bytes.to_vec())
        }
        other => panic!("{other:?}"),
    }
}

/// A web server that has these files, each asked for once or more often.
fn web(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                request.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let found = files.iter().find(|(name, _)| *name == path);
            let (status, body) = found.map_or(("404 Not Found", &[][..]), |(_, body)| {
                ("200 OK", &body[..])
            });
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body);
        }
    });
    format!("http://{address}")
}

#[test]
fn pictures_at_addresses_are_fetched_in_their_order() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    folder.write("here.png", "IMG 0");
    let base = web(vec![
        ("/0.png", b"IMG 1".to_vec()),
        ("/1.png", b"IMG 2".to_vec()),
        ("/large.png", vec![7; 5 << 20]),
    ]);
    let text = format!(
        "path,label\n{base}/0.png,b\nhere.png,a\n{base}/1.png,a\n{base}/gone.png,a\n\
         {base}/large.png,b\n"
    );
    let path = folder.write("x.csv", &text);
    let create = ["create", "c", "--from", path.to_str().unwrap(), "--json"];
    let made = tipserve(&fake, &create).expect(4).json();
    let examples = std::mem::take(&mut fake.state().examples);
    let sent: Vec<_> = examples.into_iter().map(sent).collect();
    assert_eq!(
        sent,
        [
            (format!("{base}/0.png"), 1, b"IMG 1".to_vec()),
            ("here.png".to_owned(), 0, b"IMG 0".to_vec()),
            (format!("{base}/1.png"), 0, b"IMG 2".to_vec()),
        ]
    );
    let rejected = made["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 2, "{rejected:?}");
    for (one, says) in rejected.iter().zip(["404", "bytes"]) {
        assert_eq!(one["reason"], "FILE_UNREADABLE", "{one}");
        assert!(one["message"].as_str().unwrap().contains(says), "{one}");
    }
}

#[test]
fn no_proxy_leads_to_pictures_on_this_machine() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let base = web(vec![("/0.png", b"IMG 1".to_vec())]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", nobody.local_addr().unwrap());
    for host in ["127.0.0.1", "localhost", "LocalHost"] {
        let address = base.replace("127.0.0.1", host);
        let path = folder.write("x.csv", &format!("path,label\n{address}/0.png,a\n"));
        let mut run = command(&fake, &["create", "c", "--from", path.to_str().unwrap()]);
        for name in [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "all_proxy",
            "ALL_PROXY",
        ] {
            run.env(name, &proxy);
        }
        run.env_remove("no_proxy").env_remove("NO_PROXY");
        Ran::of(run.output().unwrap()).expect(0);
    }
}

/// A Parquet file with a picture, or the path of one, and a label in each row.
fn parquet(
    path: &Path,
    schema: &str,
    pictures: &[&[u8]],
    labels: &Labels,
    compression: Compression,
) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let names = matches!(labels, Labels::Indices(_)).then(|| {
        let text = r#"{"info": {"features": {"label": {"names": ["owl", "cat"], "_type": "ClassLabel"}}}}"#;
        vec![KeyValue::new("huggingface".to_owned(), text.to_owned())]
    });
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_key_value_metadata(names)
        .build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts = |values: &[&[u8]]| -> Vec<ByteArray> {
        values
            .iter()
            .map(|one| ByteArray::from(one.to_vec()))
            .collect()
    };
    let mut column = group.next_column().unwrap().unwrap();
    let values = texts(pictures);
    column
        .typed::<ByteArrayType>()
        .write_batch(&values, None, None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    match labels {
        Labels::Indices(labels) => {
            column
                .typed::<Int64Type>()
                .write_batch(labels, None, None)
                .unwrap();
        }
        Labels::Names(labels) => {
            let labels: Vec<&[u8]> = labels.iter().map(|one| one.as_bytes()).collect();
            let values = texts(&labels);
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, None, None)
                .unwrap();
        }
    }
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    assert!(
        SerializedFileReader::try_from(path)
            .unwrap()
            .num_row_groups()
            == 1
    );
}

enum Labels {
    Names(Vec<&'static str>),
    Indices(Vec<i64>),
}

#[test]
fn parquet_holds_pictures_or_their_paths() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    folder.write("0.png", "IMG 0");
    folder.write("1.png", "IMG 1");
    let path = folder.path().join("x.parquet");
    let named = Labels::Names(vec!["b", "a"]);
    let pictures: [&[u8]; 2] = [b"IMG 0", b"IMG 1"];
    let row = |id: &str, class: i32, bytes: &[u8]| (id.to_owned(), class, bytes.to_vec());

    let schema = "message m { required binary image; required binary label (UTF8); }";
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
        Compression::BROTLI(Default::default()),
    ] {
        parquet(&path, schema, &pictures, &named, compression);
        let expected = [row("0", 1, b"IMG 0"), row("1", 0, b"IMG 1")];
        assert_eq!(made_of(&fake, &path, &[]), expected, "{compression:?}");
    }
    // Written by pyarrow, with other classes.
    std::fs::write(&path, include_bytes!("samples/brotli.parquet")).unwrap();
    let pictures_of_pyarrow = made_of(&fake, &path, &[]);
    assert_eq!(pictures_of_pyarrow.len(), 2);
    assert!(
        pictures_of_pyarrow
            .iter()
            .all(|(_, _, bytes)| bytes.starts_with(b"IMG "))
    );
    parquet(&path, schema, &pictures, &named, Compression::SNAPPY);
    // Of the rows that are drawn, each is the picture of its own row.
    let one = made_of(&fake, &path, &["--shots", "1"]);
    assert_eq!(one.len(), 2);

    let schema = "message m { required binary path (UTF8); required binary label (UTF8); }";
    parquet(
        &path,
        schema,
        &[b"0.png", b"1.png"],
        &named,
        Compression::SNAPPY,
    );
    let expected = [row("0.png", 1, b"IMG 0"), row("1.png", 0, b"IMG 1")];
    assert_eq!(made_of(&fake, &path, &[]), expected);

    // As `datasets` writes them: the picture in a group, the class by its index.
    let schema =
        "message m { required group image { required binary bytes; } required int64 label; }";
    let indices = Labels::Indices(vec![1, 0]);
    parquet(&path, schema, &pictures, &indices, Compression::SNAPPY);
    let expected = [row("0", 1, b"IMG 0"), row("1", 0, b"IMG 1")];
    assert_eq!(made_of(&fake, &path, &[]), expected);
    let spec = fake.state().specs.pop().unwrap();
    let names: Vec<String> = spec
        .classes
        .into_iter()
        .map(|one| one.display_name)
        .collect();
    assert_eq!(names, ["owl", "cat"]);
}

#[test]
fn what_a_parquet_files_rows_lack_is_named() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let path = folder.path().join("x.parquet");
    let named = Labels::Names(vec!["b", " "]);
    let pictures: [&[u8]; 2] = [b"IMG 0", b"IMG 1"];
    let schema = "message m { required binary image; required binary label (UTF8); }";
    let refused = |says: &str| {
        let ran = tipserve(&fake, &["create", "c", "--from", path.to_str().unwrap()]);
        let error = ran.expect(1).stderr;
        assert!(
            error.contains(says) && error.contains("x.parquet"),
            "{says}: {error}"
        );
    };
    parquet(&path, schema, &pictures, &named, Compression::SNAPPY);
    refused("row 1: it has no class");
    let outside = Labels::Indices(vec![0, 2]);
    let schema = "message m { required binary image; required int64 label; }";
    parquet(&path, schema, &pictures, &outside, Compression::SNAPPY);
    refused("row 1: it has the class 2, none of its 2 classes");
    let schema = "message m { required binary image; required binary kind (UTF8); }";
    parquet(&path, schema, &pictures, &named, Compression::SNAPPY);
    refused("none may be the class's");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    refused("it cannot be read as Parquet");
    std::fs::write(&path, include_bytes!("samples/lzo.parquet")).unwrap();
    refused("write it with Snappy or Zstandard");
}
