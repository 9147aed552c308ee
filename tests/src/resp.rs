//! RESP as a test speaks it: commands out, values in, over any transport, and nothing cleverer than that.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::{db_config::DbConfig, raw::Raw};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One value of RESP2 or RESP3.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `+text`.
    Simple(String),
    /// `-text` or `!text`.
    Error(String),
    /// `:number`.
    Integer(i64),
    /// `$` with its bytes.
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`.
    Null,
    /// `*`.
    Array(Vec<Value>),
    /// `%`, keys and values in turn.
    Map(Vec<Value>),
    /// `~`.
    Set(Vec<Value>),
    /// `>`.
    Push(Vec<Value>),
    /// `,`, `#`, `(` and `=`: type and text.
    Other(char, String),
}

impl fmt::Debug for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Simple(text) => write!(out, "+{text}"),
            Value::Error(text) => write!(out, "-{text}"),
            Value::Integer(number) => write!(out, ":{number}"),
            Value::Bulk(bytes) => write!(out, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)])),
            Value::Null => write!(out, "null"),
            Value::Array(items) => out.debug_list().entries(items).finish(),
            Value::Map(items) => write!(out, "%{items:?}"),
            Value::Set(items) => write!(out, "~{items:?}"),
            Value::Push(items) => write!(out, ">{items:?}"),
            Value::Other(kind, text) => write!(out, "{kind}{text}"),
        }
    }
}

impl From<&str> for Value {
    /// A bulk string.
    fn from(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }
}

impl Value {
    /// `+OK`.
    pub fn ok() -> Value {
        Value::Simple("OK".into())
    }

    /// `+QUEUED`.
    pub fn queued() -> Value {
        Value::Simple("QUEUED".into())
    }

    /// Whether it is an error that begins with `prefix`.
    pub fn is_error(&self, prefix: &str) -> bool {
        matches!(self, Value::Error(text) if text.starts_with(prefix))
    }

    /// The text of a simple or bulk string, an error or a number; of anything else its debug form.
    pub fn text(&self) -> String {
        match self {
            Value::Simple(text) | Value::Error(text) | Value::Other(_, text) => text.clone(),
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Integer(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }

    /// The items of an array, set, push or map. Panics for anything else.
    #[track_caller]
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) | Value::Map(items) => items,
            other => panic!("no items in {other:?}"),
        }
    }

    /// Reads one value; `None` at a clean end.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Value>> {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(bad("a line without CR LF", &line)) };
        let (&kind, rest) = line.split_first().ok_or_else(|| bad("an empty line", line))?;
        let text = String::from_utf8_lossy(rest).into_owned();
        let number = || text.parse::<i64>().map_err(|_| bad("no number", line));
        Ok(Some(match kind {
            b'+' => Value::Simple(text),
            b'-' => Value::Error(text),
            b':' => Value::Integer(number()?),
            b'_' => Value::Null,
            b',' | b'#' | b'(' => Value::Other(kind as char, text),
            b'$' | b'=' | b'!' => {
                let Ok(length) = usize::try_from(number()?) else { return Ok(Some(Value::Null)) };
                let mut bytes = vec![0; length + 2];
                from.read_exact(&mut bytes)?;
                if bytes.split_off(length) != b"\r\n" {
                    return Err(bad("a bulk string without CR LF", line));
                }
                let text = || String::from_utf8_lossy(&bytes).into_owned();
                match kind {
                    b'$' => Value::Bulk(bytes),
                    b'!' => Value::Error(text()),
                    _ => Value::Other('=', text()),
                }
            }
            b'*' | b'~' | b'>' | b'%' => {
                let Ok(count) = usize::try_from(number()?) else { return Ok(Some(Value::Null)) };
                let count = if kind == b'%' { count * 2 } else { count };
                let items: io::Result<Vec<Value>> =
                    (0..count).map(|_| Value::read(from)?.ok_or_else(|| bad("an end inside an array", line))).collect();
                let items = items?;
                match kind {
                    b'*' => Value::Array(items),
                    b'~' => Value::Set(items),
                    b'>' => Value::Push(items),
                    _ => Value::Map(items),
                }
            }
            _ => return Err(bad("an unknown type", line)),
        }))
    }
}

fn bad(what: &str, line: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {:?}", String::from_utf8_lossy(line)))
}

/// A command as an array of bulk strings.
pub fn command<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A command from words separated by spaces.
pub fn words(line: &str) -> Vec<u8> {
    command(&line.split(' ').collect::<Vec<_>>())
}

trait Transport: Read + Write + Send {}
impl Transport for UnixStream {}
impl Transport for TcpStream {}
impl Transport for Raw {}

/// A connection that speaks RESP.
pub struct Session {
    stream: BufReader<Box<dyn Transport>>,
    socket: Option<TcpStream>,
}

impl Session {
    /// Through the gateway: TLS at once, with the certificate of the login.
    pub fn through(db: &DbConfig) -> io::Result<Session> {
        let raw = Raw::tcp(db).handshake(db, true, &[])?;
        let socket = raw.socket().try_clone()?;
        Ok(Session { stream: BufReader::new(Box::new(raw)), socket: Some(socket) })
    }

    /// Through the gateway. Panics when the handshake fails.
    #[track_caller]
    pub fn login(db: &DbConfig) -> Session {
        Session::through(db).expect("TLS to the gateway")
    }

    /// Plain TCP.
    pub fn tcp(host: &str, port: u16) -> io::Result<Session> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let socket = stream.try_clone()?;
        Ok(Session { stream: BufReader::new(Box::new(stream)), socket: Some(socket) })
    }

    /// A Unix socket.
    pub fn unix(path: &Path) -> io::Result<Session> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Session { stream: BufReader::new(Box::new(stream)), socket: None })
    }

    /// Sends all bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)?;
        self.stream.get_mut().flush()
    }

    /// One value. Panics when the connection ends or stays silent.
    #[track_caller]
    pub fn read(&mut self) -> Value {
        match Value::read(&mut self.stream) {
            Ok(Some(value)) => value,
            Ok(None) => panic!("the connection ended where an answer was due"),
            Err(e) => panic!("no answer: {e}"),
        }
    }

    /// One value, `None` at the end, or the error.
    pub fn try_read(&mut self) -> io::Result<Option<Value>> {
        Value::read(&mut self.stream)
    }

    /// Sends a command and reads its answer.
    #[track_caller]
    pub fn ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Value {
        self.send(&command(arguments)).expect("the connection is open");
        self.read()
    }

    /// The same with words separated by spaces.
    #[track_caller]
    pub fn say(&mut self, line: &str) -> Value {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }

    /// Sends the commands in one piece and reads as many answers.
    #[track_caller]
    pub fn pipeline(&mut self, lines: &[impl AsRef<str>]) -> Vec<Value> {
        let bytes: Vec<u8> = lines.iter().flat_map(|l| words(l.as_ref())).collect();
        self.send(&bytes).expect("the connection is open");
        lines.iter().map(|_| self.read()).collect()
    }

    /// All bytes until the other side closes. Panics when it does not.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("still open after {:?}", String::from_utf8_lossy(&bytes))
            }
            // A reset, a TLS alert, or an end without close_notify.
            _ => bytes,
        }
    }

    /// Up to `limit` raw bytes of what has come and comes next.
    pub fn read_some(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; limit];
        let n = self.stream.read(&mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    /// Half-closes the sending side of the TCP connection.
    pub fn shutdown_write(&self) {
        self.socket().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// The TCP socket below. Panics for a Unix socket.
    pub fn socket(&self) -> &TcpStream {
        self.socket.as_ref().expect("a TCP connection")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Value {
        Value::read(&mut bytes).expect("well-formed").expect("a value")
    }

    #[test]
    fn every_type_is_read() {
        assert_eq!(read(b"+OK\r\n"), Value::ok());
        assert_eq!(read(b"-ERR no\r\n"), Value::Error("ERR no".into()));
        assert_eq!(read(b"$-1\r\n"), Value::Null);
        assert_eq!(read(b"*2\r\n:1\r\n$2\r\nhi\r\n"), Value::Array(vec![Value::Integer(1), "hi".into()]));
        assert_eq!(read(b"%1\r\n+a\r\n#t\r\n").items().len(), 2);
        assert_eq!(read(b">1\r\n,1.5\r\n"), Value::Push(vec![Value::Other(',', "1.5".into())]));
        assert_eq!(read(b"=6\r\ntxt:ab\r\n"), Value::Other('=', "txt:ab".into()));
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(words("GET key"), b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    }

    #[test]
    fn bytes_that_are_no_value_are_an_error() {
        for bytes in [&b"+OK\n"[..], b"@\r\n", b"$3\r\nabcd\r\n", b":x\r\n", b"*1\r\n"] {
            assert!(Value::read(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
