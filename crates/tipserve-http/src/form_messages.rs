//! A form on its way into messages.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use tonic::{Code, Status};

use crate::{
    arrival::Arrival,
    call::Call,
    content::Picture,
    form::{self, Batch, Classes, Form, Part},
    json::JsonError,
    query::Singular,
    status,
};

/// A form on its way into messages.
pub struct FormReading {
    call: Arc<Call>,
    form: Form,
    limit: usize,
    /// The first message, or the only one.
    own: Vec<u8>,
    /// The fields that the form has given.
    singular: Singular,
    target: Target,
}

/// How the pictures of a form are sent.
enum Target {
    /// As fields of the only message; with whether it has one already.
    Message(Option<Picture>, bool),
    /// As messages of their own, after the first one. Has the names of the
    /// classes, if the first message gives them.
    Stream {
        batch: Batch,
        names: Option<HashSet<String>>,
    },
    /// As above, but the classes are the names of the parts: no picture can be
    /// sent before the last name is known.
    Gathering {
        batch: Batch,
        classes: Classes,
        parts: Vec<Part>,
        /// Bytes of the pictures so far.
        held: usize,
    },
    /// A streaming call of which nothing has been read yet.
    Unknown(Option<Batch>),
}

impl FormReading {
    /// Reads a body as the form of a call.
    pub fn new(call: &Arc<Call>, arrival: Arrival, boundary: &str) -> FormReading {
        let streams = call.rpc.descriptor.is_client_streaming();
        FormReading {
            limit: arrival.bounds().largest(),
            form: Form::new(arrival, boundary),
            own: call.fields(),
            singular: Singular::default(),
            target: match streams {
                true => Target::Unknown(Batch::of(&call.rpc.input)),
                false => Target::Message(Picture::of(&call.rpc.input), false),
            },
            call: Arc::clone(call),
        }
    }

    /// Reads until one or more messages are complete; true at the end of the
    /// form.
    pub async fn read(&mut self, ready: &mut VecDeque<Vec<u8>>) -> Result<bool, Status> {
        match &self.target {
            Target::Message(..) => self.form.reserve_whole().await?,
            Target::Unknown(_) | Target::Stream { .. } | Target::Gathering { .. } => {}
        }
        loop {
            let whole = !matches!(self.target, Target::Stream { .. } | Target::Unknown(_));
            let Some(part) = self.form.next(whole).await? else {
                self.finish(ready)?;
                return Ok(true);
            };
            match (&mut self.target, &part.file) {
                (Target::Message(..) | Target::Unknown(_), None) => {
                    let message = &self.call.rpc.input;
                    let (singular, own) = (&mut self.singular, &mut self.own);
                    form::put_field(message, &part, self.limit, singular, own)?;
                }
                (_, None) => {
                    let problem = "fields come before pictures";
                    return Err(JsonError::field(&part.name, problem).into());
                }
                (Target::Message(picture, has_one), Some(_)) => {
                    let Some(picture) = picture else {
                        return Err(JsonError::field(&part.name, "no picture is taken").into());
                    };
                    if std::mem::replace(has_one, true) && !picture.input.is_list() {
                        return Err(second_picture(&part.name));
                    }
                    crate::call::put_picture(picture, &part.data, &mut self.own);
                    if self.own.len() > self.limit {
                        return Err(JsonError::TooLarge(self.limit).into());
                    }
                }
                (Target::Unknown(_), Some(_)) => {
                    let first = self.begin(part).await?;
                    ready.extend(first);
                    if !ready.is_empty() {
                        return Ok(false);
                    }
                }
                (Target::Gathering { parts, held, .. }, Some(_)) => {
                    *held += part.size();
                    if *held > self.limit {
                        return Err(JsonError::TooLarge(self.limit).into());
                    }
                    parts.push(part);
                }
                (Target::Stream { batch, names }, Some(_)) => {
                    ready.push_back(one(batch, names.as_ref(), &part)?);
                    return Ok(false);
                }
            }
        }
    }

    /// Decides at the first picture how pictures are sent. Returns the messages
    /// that are complete.
    async fn begin(&mut self, part: Part) -> Result<Vec<Vec<u8>>, Status> {
        let input = &self.call.rpc.input;
        let batch = match &self.target {
            Target::Unknown(Some(batch)) => batch.clone(),
            _ => return Err(JsonError::field(&part.name, "no picture is taken").into()),
        };
        let classes = Classes::of(input).filter(|_| batch.has_classes());
        let names = classes.as_ref().map(|classes| classes.names(&self.own));
        if let (Some(classes), Some(names)) = (classes, &names)
            && names.is_empty()
        {
            self.form.reserve_whole().await?;
            self.target = Target::Gathering {
                batch,
                classes,
                held: part.size(),
                parts: vec![part],
            };
            return Ok(Vec::new());
        }
        let first = one(&batch, names.as_ref(), &part)?;
        self.target = Target::Stream { batch, names };
        Ok(vec![std::mem::take(&mut self.own), first])
    }

    fn finish(&mut self, ready: &mut VecDeque<Vec<u8>>) -> Result<(), Status> {
        match &mut self.target {
            Target::Message(..) | Target::Unknown(_) => {
                ready.push_back(std::mem::take(&mut self.own));
            }
            Target::Stream { .. } => {}
            Target::Gathering {
                batch,
                classes,
                parts,
                ..
            } => {
                let mut names = HashSet::new();
                for part in parts.iter() {
                    if names.insert(part.name.clone()) {
                        classes.put(&part.name, &mut self.own);
                    }
                }
                ready.push_back(std::mem::take(&mut self.own));
                for part in parts.drain(..) {
                    ready.push_back(one(batch, Some(&names), &part)?);
                }
            }
        }
        Ok(())
    }
}

fn second_picture(name: &str) -> Status {
    let message = format!(
        "the method takes one picture, and {name:?} is the form's second; methods with Stream in \
         their names take many"
    );
    status::error(Code::InvalidArgument, "FORM_INVALID", message)
}

/// The message of one picture. If pictures have a class, the part's name is its
/// name.
fn one(batch: &Batch, names: Option<&HashSet<String>>, part: &Part) -> Result<Vec<u8>, Status> {
    let file = part.file.as_deref().unwrap_or_default();
    if !batch.has_classes() {
        return Ok(batch.picture(file, "", &part.data));
    }
    // Elsewhere the server itself knows the classes.
    if names.is_some_and(|names| !names.contains(&part.name)) {
        let problem = "the classes have none of this name";
        return Err(JsonError::field(&part.name, problem).into());
    }
    let id = match file {
        "" => String::new(),
        file => format!("{}/{file}", part.name),
    };
    Ok(batch.picture(&id, &part.name, &part.data))
}
