//! `tipserve info`: what the server serves.

use crate::{
    connect::Connection,
    documents::ServerDocument,
    failure::{Completion, Failure},
    global::Global,
    screen::{Screen, number, table},
};

pub async fn run(global: &Global, screen: &Screen) -> Result<Completion, Failure> {
    let connection = Connection::open(global).await?;
    let info = ServerDocument::new(connection.info().await?, connection.address());
    if screen.json {
        screen.document(&info)?;
        return Ok(Completion::Done);
    }
    let bundle = &info.bundle;
    let yes = |has: bool| if has { "yes" } else { "no" }.to_owned();
    let mut rows = vec![
        vec!["server".into(), info.address.clone()],
        vec!["version".into(), info.version.clone()],
        vec!["device".into(), device(&info)],
        vec!["bundle".into(), bundle.name.clone()],
        vec!["fingerprint".into(), bundle.fingerprint.clone()],
        vec!["width".into(), bundle.width.to_string()],
        vec!["pictures".into(), yes(bundle.has_image_encoder)],
        vec!["texts".into(), yes(bundle.has_text_encoder)],
        vec!["statistics".into(), yes(bundle.feature_statistics)],
        vec!["logit scale".into(), number(bundle.logit_scale)],
    ];
    if let Some(bias) = bundle.logit_bias {
        rows.push(vec!["logit bias".into(), number(bias)]);
    }
    if bundle.image_size > 0 {
        rows.push(vec!["image size".into(), bundle.image_size.to_string()]);
        // Older servers say less.
        if bundle.resize_to > 0 {
            rows.push(vec!["resized to".into(), bundle.resize_to.to_string()]);
        }
        if !bundle.interpolation.is_empty() {
            rows.push(vec!["interpolation".into(), bundle.interpolation.clone()]);
        }
        if !bundle.resize.is_empty() {
            rows.push(vec!["resize".into(), bundle.resize.clone()]);
        }
    }
    for template in &bundle.templates {
        rows.push(vec!["template".into(), template.clone()]);
    }
    for (name, limit) in &info.limits {
        rows.push(vec![format!("limit {name}"), limit.to_string()]);
    }
    screen.line(&table(&[], &[], rows))?;
    Ok(Completion::Done)
}

/// Where the encoders run, and what they compute in: "cpu (int8, texts
/// bfloat16)".
fn device(info: &ServerDocument) -> String {
    let ServerDocument {
        device,
        dtype,
        text_dtype,
        ..
    } = info;
    if text_dtype.is_empty() || text_dtype == dtype {
        format!("{device} ({dtype})")
    } else {
        format!("{device} ({dtype}, texts {text_dtype})")
    }
}
