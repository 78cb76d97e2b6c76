//! Reads JSON text value by value, at the caller's pace: what the text means is
//! decided where it is read, so that nothing is kept of it, and lists of numbers
//! can be read without a call for each.

use std::borrow::Cow;

use super::{JsonError, decimal::Decimal};

/// Deepest nesting that is read: more than any request's messages have.
const DEPTH: usize = 64;

/// The next value of a text, or its beginning.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Decimal<'a>),
    /// A string, its escapes resolved.
    Text(Cow<'a, str>),
    /// `[`; its elements are next ([`Reader::element`]).
    List,
    /// `{`; its members are next ([`Reader::member`]).
    Object,
}

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of a text.
    pub fn new(text: &'a [u8]) -> Reader<'a> {
        Reader {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// What is left of the text.
    pub fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Goes on behind bytes that were read from [`Reader::rest`].
    pub fn advance(&mut self, bytes: usize) {
        self.at = self.text.len().min(self.at.saturating_add(bytes));
    }

    /// The next byte that is not white space, without reading it.
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !is_space(*byte) {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// The next value. Of a list or an object only its beginning is read.
    ///
    /// # Errors
    /// If the text goes on with anything else.
    pub fn value(&mut self) -> Result<Value<'a>, JsonError> {
        let begun = match self.peek() {
            None => return Err(self.wrong("it ends before a value")),
            Some(b'"') => return self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => {
                let number = Decimal::parse(self.rest());
                let number = number.ok_or_else(|| self.wrong("expected a number"))?;
                self.at += number.text.len();
                return Ok(Value::Number(number));
            }
            Some(b'{') => Value::Object,
            Some(b'[') => Value::List,
            Some(_) => return self.literal(),
        };
        self.at += 1;
        self.depth += 1;
        match self.depth <= DEPTH {
            true => Ok(begun),
            false => Err(self.wrong("it is nested too deeply")),
        }
    }

    fn literal(&mut self) -> Result<Value<'a>, JsonError> {
        for (name, value) in [
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
        ] {
            if self.rest().starts_with(name.as_bytes()) {
                self.at += name.len();
                return Ok(value);
            }
        }
        Err(self.wrong("expected a value"))
    }

    /// Whether a list goes on; if it does not, its end has been read. `first`
    /// says that no element has been read yet.
    ///
    /// # Errors
    /// If neither an element nor the end follows.
    pub fn element(&mut self, first: bool) -> Result<bool, JsonError> {
        self.goes_on(b']', first, "expected `,` or `]`")
    }

    /// The name of an object's next member, whose value is next; none at the end,
    /// which has been read then.
    ///
    /// # Errors
    /// If neither a member nor the end follows.
    pub fn member(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, JsonError> {
        if !self.goes_on(b'}', first, "expected `,` or `}`")? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.wrong("expected a name in quotes"));
        }
        let name = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.wrong("expected `:`"));
        }
        self.at += 1;
        Ok(Some(name))
    }

    fn goes_on(&mut self, end: u8, first: bool, expected: &str) -> Result<bool, JsonError> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                self.depth = self.depth.saturating_sub(1);
                Ok(false)
            }
            Some(_) if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                match self.peek() {
                    Some(byte) if byte == end => Err(self.wrong("a comma is the last")),
                    _ => Ok(true),
                }
            }
            _ => Err(self.wrong(expected)),
        }
    }

    /// Checks that nothing follows but white space.
    ///
    /// # Errors
    /// If something does.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("something follows its end")),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let quoted = self.rest();
        let inside = quoted.get(1..).unwrap_or_default();
        let mut length = 0;
        let mut escaped = false;
        loop {
            let left = inside.get(length..).unwrap_or_default();
            length += plain(left);
            match inside.get(length) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    length += 2;
                }
                Some(_) => return Err(self.wrong("a control character in a string")),
                None => return Err(self.wrong("it ends within a string")),
            }
        }
        let wrong = |_| self.wrong("a string is not valid");
        let text = if escaped {
            let quoted = quoted.get(..length + 2).unwrap_or_default();
            Cow::Owned(
                serde_json::from_slice(quoted).map_err(|_| self.wrong("a string is not valid"))?,
            )
        } else {
            let inside = inside.get(..length).unwrap_or_default();
            Cow::Borrowed(str::from_utf8(inside).map_err(wrong)?)
        };
        self.at += length + 2;
        Ok(text)
    }

    /// That the text is no JSON here.
    pub fn wrong(&self, problem: &str) -> JsonError {
        let before = self.text.get(..self.at).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = 1 + before
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count();
        JsonError::Syntax(format!("{problem} at line {line} column {column}"))
    }
}

/// Whether JSON has it between values.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// How many bytes of a string stand for themselves.
fn plain(bytes: &[u8]) -> usize {
    let ends = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
    let mut length = 0;
    // Without a branch for each byte: pictures are megabytes of them.
    for chunk in bytes.chunks_exact(32) {
        if chunk.iter().fold(false, |found, byte| found | ends(byte)) {
            break;
        }
        length += chunk.len();
    }
    let left = bytes.get(length..).unwrap_or_default();
    length + left.iter().position(ends).unwrap_or(left.len())
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// Reads a whole value, whatever it is.
    fn skip(reader: &mut Reader<'_>) -> Result<(), JsonError> {
        let mut first = true;
        match reader.value()? {
            Value::List => {
                while reader.element(std::mem::take(&mut first))? {
                    skip(reader)?;
                }
            }
            Value::Object => {
                while reader.member(std::mem::take(&mut first))?.is_some() {
                    skip(reader)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(text: &[u8]) -> Result<(), JsonError> {
        let mut reader = Reader::new(text);
        skip(&mut reader)?;
        reader.end()
    }

    #[test]
    fn a_text_is_json_exactly_if_another_reader_says_so() {
        const PIECES: [&str; 28] = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\x\"",
            "\"\n\"",
            "\"ü\"",
            "null",
            "true",
            "fals",
            "0",
            "-",
            "-0.5",
            "01",
            "1e5",
            "1E+",
            "1.",
            "12345678901234567890",
            " ",
            "\t\r\n",
            "\u{feff}",
        ];
        let seed = rand::random();
        println!("seed {seed}");
        let mut chance = StdRng::seed_from_u64(seed);
        let mut valid = 0;
        for _ in 0..200_000 {
            let count = chance.random_range(1..9);
            let mut text: Vec<u8> = (0..count)
                .flat_map(|_| PIECES[chance.random_range(0..PIECES.len())].bytes())
                .collect();
            if chance.random_bool(0.05) {
                let at = chance.random_range(0..text.len());
                text[at] = chance.random();
            }
            let wanted = serde_json::from_slice::<serde_json::Value>(&text);
            let shown = String::from_utf8_lossy(&text);
            match wanted {
                Ok(_) => assert_eq!(check(&text), Ok(()), "{shown}"),
                Err(error) if error.to_string().contains("out of range") => {}
                Err(_) => assert!(check(&text).is_err(), "{shown}"),
            }
            valid += usize::from(check(&text).is_ok());
        }
        assert!(valid > 1000, "{valid}");
    }

    #[test]
    fn strings_are_whole_and_their_escapes_resolved() {
        for text in [
            "",
            "a",
            "ä\u{1f408}",
            "\"quoted\" and \\",
            "\n\t\u{1}\u{7f}",
            &"x".repeat(1000),
            &format!("{}\"{}", "y".repeat(31), "z".repeat(70)),
        ] {
            let json = serde_json::to_string(text).expect("JSON");
            let read = Reader::new(json.as_bytes()).value().expect("a string");
            assert_eq!(read, Value::Text(text.into()));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, told) in [
            ("", "it ends before a value at line 1 column 1"),
            ("{\n \"a\": 1 2}", "expected `,` or `}` at line 2 column 9"),
            ("[1,]", "a comma is the last at line 1 column 4"),
            ("{a: 1}", "expected a name in quotes at line 1 column 2"),
            ("\"a", "it ends within a string at line 1 column 1"),
            ("1 2", "something follows its end at line 1 column 3"),
        ] {
            assert_eq!(
                check(text.as_bytes()),
                Err(JsonError::Syntax(told.to_owned()))
            );
        }
        let deep = "[".repeat(100_000);
        assert!(check(deep.as_bytes()).is_err());
    }
}
