//! PostgreSQL messages, written and read by hand so that they can be wrong on purpose.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

/// Code of an SSLRequest.
pub const SSL_REQUEST: u32 = 80_877_103;
/// Code of a GSSENCRequest.
pub const GSS_REQUEST: u32 = 80_877_104;
/// Code of a CancelRequest.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// Protocol 3.0.
pub const VERSION_3_0: u32 = 196_608;
/// Protocol 3.2.
pub const VERSION_3_2: u32 = 196_610;

/// A message without a type byte: length, code, body.
pub fn untagged(code: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// A StartupMessage with these parameters in this order, duplicates and all.
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in parameters {
        body.extend_from_slice(key.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    untagged(version, &body)
}

/// A message with a type byte and its true length.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    head_and(tag, 4 + body.len() as u32, body)
}

/// A message with a type byte and whatever length is said.
pub fn head_and(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// A Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

/// A Parse without parameter types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
}

/// A Bind with text parameters and text results.
pub fn bind(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0"].concat();
    body.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => body.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(text) => {
                body.extend_from_slice(&(text.len() as u32).to_be_bytes());
                body.extend_from_slice(text.as_bytes());
            }
        }
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

/// An Execute without a row limit.
pub fn execute(portal: &str) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat())
}

/// A Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// A FunctionCall without arguments.
pub fn function_call(oid: u32) -> Vec<u8> {
    let mut body = oid.to_be_bytes().to_vec();
    body.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
    message(b'F', &body)
}

/// A message as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type byte.
    pub tag: u8,
    /// The rest after the length.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one message. `None` at an orderly end between messages.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Message>> {
        let mut head = [0; 5];
        let got = from.read(&mut head[..1])?;
        if got == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..])?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length.checked_sub(4).expect("a length of at least 4") as usize];
        from.read_exact(&mut body)?;
        Ok(Some(Message { tag: head[0], body }))
    }

    /// Fields of an ErrorResponse or NoticeResponse.
    pub fn fields(&self) -> Fields {
        assert!(matches!(self.tag, b'E' | b'N'), "no error: {self:?}");
        let fields = self.body.split(|b| *b == 0).filter(|f| !f.is_empty());
        Fields(fields.map(|f| (f[0] as char, String::from_utf8_lossy(&f[1..]).into_owned())).collect())
    }

    /// The first column of a DataRow, as text.
    pub fn first_column(&self) -> String {
        assert_eq!(self.tag, b'D', "no row: {self:?}");
        let length = u32::from_be_bytes(self.body[2..6].try_into().expect("four bytes")) as usize;
        String::from_utf8_lossy(&self.body[6..6 + length]).into_owned()
    }
}

/// What a PostgreSQL error says, by field type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(pub BTreeMap<char, String>);

impl Fields {
    /// `S`: FATAL, ERROR ...
    pub fn severity(&self) -> &str {
        self.0.get(&'V').or(self.0.get(&'S')).map_or("", String::as_str)
    }

    /// `C`: SQLSTATE.
    pub fn code(&self) -> &str {
        self.0.get(&'C').map_or("", String::as_str)
    }

    /// `M`.
    pub fn text(&self) -> &str {
        self.0.get(&'M').map_or("", String::as_str)
    }
}
