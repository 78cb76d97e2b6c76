//! Path templates of `google.api.http`: `/v1/{name=caches/*}/versions:import`.
//!
//! What tipserve's protos use of the grammar: literals, `*` for one segment,
//! variables over one or more of these, and a verb (AIP-136).

use percent_encoding::percent_decode_str;
use thiserror::Error;

/// A template that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the path template {template:?} is not valid: {problem}")]
pub struct TemplateError {
    template: String,
    problem: &'static str,
}

/// A path template, parsed and ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    verb: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// One segment, whatever it is.
    Any,
}

/// Some segments whose text is the value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    /// The field's path, with dots.
    field: String,
    first: usize,
    count: usize,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(template: &str) -> Result<Template, TemplateError> {
        let wrong = |problem| TemplateError {
            template: template.to_owned(),
            problem,
        };
        let mut rest = template
            .strip_prefix('/')
            .ok_or_else(|| wrong("it does not begin with a slash"))?;
        let mut parsed = Template {
            segments: Vec::new(),
            variables: Vec::new(),
            verb: None,
        };
        loop {
            if let Some(inner) = rest.strip_prefix('{') {
                let (variable, after) = inner
                    .split_once('}')
                    .ok_or_else(|| wrong("a brace is not closed"))?;
                let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                let first = parsed.segments.len();
                for segment in pattern.split('/') {
                    parsed.segments.push(segment_of(segment).map_err(wrong)?);
                }
                parsed.variables.push(Variable {
                    field: field.to_owned(),
                    first,
                    count: parsed.segments.len() - first,
                });
                rest = after;
            } else {
                let end = rest.find(['/', ':']).unwrap_or(rest.len());
                let (segment, after) = rest.split_at(end);
                parsed.segments.push(segment_of(segment).map_err(wrong)?);
                rest = after;
            }
            if rest.is_empty() {
                return Ok(parsed);
            }
            if let Some(verb) = rest.strip_prefix(':') {
                if verb.is_empty() || verb.contains(['/', ':', '{']) {
                    return Err(wrong("the verb must be the last of it"));
                }
                parsed.verb = Some(verb.to_owned());
                return Ok(parsed);
            }
            rest = rest
                .strip_prefix('/')
                .ok_or_else(|| wrong("a slash is missing after a variable"))?;
        }
    }

    /// The fields and values that a request's path gives, if it is one of this
    /// template's.
    pub fn match_path(&self, path: &RequestPath) -> Option<Vec<(&str, String)>> {
        if path.segments.len() != self.segments.len() || path.verb != self.verb {
            return None;
        }
        let fits = self
            .segments
            .iter()
            .zip(&path.segments)
            .all(|(segment, text)| match segment {
                Segment::Literal(literal) => literal == text,
                Segment::Any => !text.is_empty(),
            });
        fits.then(|| {
            let value = |variable: &Variable| {
                let segments = path.segments.iter().skip(variable.first);
                let segments: Vec<&str> =
                    segments.take(variable.count).map(String::as_str).collect();
                segments.join("/")
            };
            self.variables
                .iter()
                .map(|variable| (variable.field.as_str(), value(variable)))
                .collect()
        })
    }

    /// The fields that the path names.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables
            .iter()
            .map(|variable| variable.field.as_str())
    }

    /// The template with a placeholder of its own for each segment that varies
    /// (OpenAPI's variables have no slashes): "/v1/caches/{cache}", and the
    /// placeholders' names.
    pub fn open_api(&self) -> (String, Vec<String>) {
        let mut path = String::new();
        let mut names = Vec::new();
        let mut before = "";
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(literal) => {
                    path.push_str(literal);
                    before = literal;
                }
                Segment::Any => {
                    let at = names.len() + usize::from(before.is_empty());
                    let name = match before {
                        // "aliases" → "alias", "caches" → "cache".
                        "aliases" => "alias".to_owned(),
                        "" => format!("segment{at}"),
                        plural => plural.strip_suffix('s').unwrap_or(plural).to_owned(),
                    };
                    path.push('{');
                    path.push_str(&name);
                    path.push('}');
                    names.push(name);
                }
            }
        }
        if let Some(verb) = &self.verb {
            path.push(':');
            path.push_str(verb);
        }
        (path, names)
    }
}

fn segment_of(text: &str) -> Result<Segment, &'static str> {
    match text {
        "" => Err("a segment is empty"),
        "*" => Ok(Segment::Any),
        "**" => Err("** is not supported"),
        _ if text.contains(['*', '{', '}']) => Err("a segment is neither a literal nor *"),
        _ => Ok(Segment::Literal(text.to_owned())),
    }
}

/// A request's path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath {
    segments: Vec<String>,
    verb: Option<String>,
}

impl RequestPath {
    /// Takes a path apart; a slash at its end means nothing. None if it is not
    /// text, or if a segment holds an encoded slash, which could pass for two.
    pub fn parse(path: &str) -> Option<RequestPath> {
        let rest = path.strip_prefix('/')?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (names, last) = rest
            .rsplit_once('/')
            .map_or(("", rest), |(names, last)| (names, last));
        let (last, verb) = match last.rsplit_once(':') {
            Some((last, verb)) => (last, Some(verb.to_owned())),
            None => (last, None),
        };
        let mut segments = Vec::new();
        let names = names.split('/').filter(|_| !names.is_empty());
        for segment in names.chain([last]) {
            let text = percent_decode_str(segment).decode_utf8().ok()?;
            if text.contains('/') {
                return None;
            }
            segments.push(text.into_owned());
        }
        Some(RequestPath { segments, verb })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let template = Template::parse(template).expect("a template");
        let values = template.match_path(&RequestPath::parse(path)?)?;
        let owned = values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        Some(owned.collect())
    }

    #[test]
    fn variables_take_their_segments() {
        let one = |name: &str, value: &str| Some(vec![(name.to_owned(), value.to_owned())]);
        let classify = "/v1/{cache=caches/*}:classify";
        assert_eq!(
            matched(classify, "/v1/caches/pets:classify"),
            one("cache", "caches/pets")
        );
        assert_eq!(
            matched(classify, "/v1/caches/p%65ts:classify"),
            one("cache", "caches/pets")
        );
        assert_eq!(
            matched("/v1/{name=caches/*}", "/v1/caches/pets/"),
            one("name", "caches/pets")
        );
        for other in [
            "/v1/caches/pets",
            "/v1/caches/pets//:classify",
            "/v1/caches/pets:other",
            "/v1/caches/pets/versions/1:classify",
            "/v1/caches/:classify",
            "/v1/caches/a%2Fb:classify",
            "/v1/caches/%ff:classify",
            "/v2/caches/pets:classify",
            "v1/caches/pets:classify",
        ] {
            assert_eq!(matched(classify, other), None, "{other}");
        }
        assert_eq!(
            matched(
                "/v1/caches/{spec.cache_id}/versions:import",
                "/v1/caches/a/versions:import"
            ),
            one("spec.cache_id", "a")
        );
        assert_eq!(
            matched(
                "/v1/{cache=caches/*}/aliases/{alias}",
                "/v1/caches/a/aliases/b"
            ),
            Some(vec![
                ("cache".to_owned(), "caches/a".to_owned()),
                ("alias".to_owned(), "b".to_owned())
            ])
        );
        assert_eq!(matched("/v1/serverInfo", "/v1/serverInfo"), Some(vec![]));
    }

    #[test]
    fn what_is_not_supported_is_an_error_and_not_another_path() {
        for bad in [
            "v1",
            "/v1/{a",
            "/v1/**",
            "/v1/{a=b/**}",
            "/v1/a:b/c",
            "/v1//a",
            "/v1/{a}b",
            "/a*",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn open_api_names_each_segment_that_varies() {
        let shown = |template: &str| Template::parse(template).expect("a template").open_api().0;
        assert_eq!(
            shown("/v1/{name=caches/*/versions/*}:export"),
            "/v1/caches/{cache}/versions/{version}:export"
        );
        assert_eq!(
            shown("/v1/{cache=caches/*}/aliases/{alias}"),
            "/v1/caches/{cache}/aliases/{alias}"
        );
        assert_eq!(shown("/v1/{name=fineTunes/*}"), "/v1/fineTunes/{fineTune}");
    }
}
