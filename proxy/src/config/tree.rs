//! YAML with positions: every key and value knows the line and column it came from.
//!
//! The tree exists because the file is checked as a whole: all problems are reported at once, each where it stands,
//! which a deserializer that stops at the first error cannot do. Memory is bounded by [`NODES_MAX`], so an alias
//! that multiplies itself is refused instead of expanded.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::problem::Problem;

/// Longest file that is read, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
/// Most nodes of a file, aliases expanded.
const NODES_MAX: usize = 100_000;
/// Deepest nesting.
const DEPTH_MAX: usize = 32;

/// Where something stands: 1-based line and column, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// Last line of the value.
    pub(crate) last_line: usize,
    /// Name of the environment variable that set the value instead of the file.
    pub(crate) variable: Option<String>,
}

impl Mark {
    /// The first character of the file, for problems of the whole.
    pub(crate) fn start() -> Mark {
        Mark { line: 1, column: 1, last_line: 1, variable: None }
    }

    fn of(span: Span) -> Mark {
        Mark {
            line: span.start.line().max(1),
            column: span.start.col() + 1,
            last_line: span.end.line().max(span.start.line()).max(1),
            variable: None,
        }
    }

    fn at(marker: &Marker) -> Mark {
        let line = marker.line().max(1);
        Mark { line, column: marker.col() + 1, last_line: line, variable: None }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, with or without quotes.
    Scalar(String),
    /// `- a` or `[a]`.
    List(Vec<Node>),
    /// `a: b` or `{a: b}`, in the order of the file, keys unique.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_mark: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// An empty mapping, for a file or section that is not there.
    pub(crate) fn empty() -> Node {
        Node { mark: Mark::start(), kind: Kind::Map(Vec::new()) }
    }

    /// What the value is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    fn size(&self) -> usize {
        match &self.kind {
            Kind::Null | Kind::Scalar(_) => 1,
            Kind::List(items) => items.iter().map(Node::size).fold(1, usize::saturating_add),
            Kind::Map(entries) => entries.iter().map(|e| e.value.size()).fold(1, usize::saturating_add),
        }
    }
}

/// Parses one document. Problems of the syntax end it; duplicate keys are noted and the first value kept.
pub(crate) fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    if text.len() > FILE_BYTES_MAX {
        problems.push(
            Problem::new(Mark::start(), format!("file is {} bytes long, the limit is {FILE_BYTES_MAX}", text.len()))
                .suggest("register databases with `ringgate create` instead of listing them here"),
        );
        return None;
    }
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, problems };
    match builder.document() {
        Ok(node) => Some(node),
        Err(problem) => {
            builder.problems.push(*problem);
            None
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    problems: &'a mut Vec<Problem>,
}

type Built<T> = Result<T, Box<Problem>>;

impl<'a> Builder<'a> {
    fn next(&mut self) -> Built<(Event<'a>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(
                Problem::new(Mark::at(error.marker()), format!("not valid YAML: {}", error.info())).syntax(),
            )),
            None => Err(Box::new(Problem::new(Mark::start(), "the file ends unexpectedly".to_owned()))),
        }
    }

    fn document(&mut self) -> Built<Node> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root.unwrap_or_else(Node::empty)),
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(Box::new(
                        Problem::new(Mark::of(span), "a second document begins here".to_owned())
                            .suggest("keep one document per file"),
                    ));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Built<Node> {
        let mark = Mark::of(span);
        self.count(1, &mark)?;
        if depth > DEPTH_MAX {
            return Err(Box::new(Problem::new(mark, format!("nested deeper than {DEPTH_MAX} levels"))));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = matches!(style, ScalarStyle::Plain);
                let kind = if plain && matches!(text.as_ref(), "" | "~" | "null") {
                    Kind::Null
                } else {
                    Kind::Scalar(text.into_owned())
                };
                (anchor, Node { mark, kind })
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    Box::new(Problem::new(mark.clone(), "alias of an anchor that holds itself".to_owned()))
                })?;
                self.count(node.size(), &mark)?;
                return Ok(node);
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                (anchor, Node { mark, kind: Kind::List(items) })
            }
            Event::MappingStart(anchor, _) => (anchor, self.mapping(mark, depth)?),
            _ => return Err(Box::new(Problem::new(mark, "not valid YAML: unexpected end of a block".to_owned()))),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, mark: Mark, depth: usize) -> Built<Node> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                other => other,
            };
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            let Kind::Scalar(text) = key.kind else {
                self.problems
                    .push(Problem::new(key.mark.clone(), format!("a key is a word, this is {}", key.describe())));
                continue;
            };
            if let Some(first) = entries.iter().find(|e| e.key == text) {
                let place = first.key_mark.line;
                self.problems.push(
                    Problem::new(key.mark, format!("key `{text}` is given twice"))
                        .suggest(format!("remove one of the two; the first is on line {place}")),
                );
                continue;
            }
            entries.push(Entry { key: text, key_mark: key.mark, value });
        }
        Ok(Node { mark, kind: Kind::Map(entries) })
    }

    fn count(&mut self, nodes: usize, mark: &Mark) -> Built<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err(Box::new(Problem::new(mark.clone(), format!("more than {NODES_MAX} values, aliases counted"))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<Node>, Vec<String>) {
        let mut problems = Vec::new();
        let node = parse(text, &mut problems);
        (node, problems.iter().map(|p| format!("{}:{} {}", p.mark.line, p.mark.column, p.message)).collect())
    }

    #[test]
    fn keys_and_values_know_their_place_in_block_and_flow_style() {
        let (node, problems) = parsed("a:\n  b: { c: 1, dd: [x, y] }\n");
        assert!(problems.is_empty(), "{problems:?}");
        let Kind::Map(top) = node.unwrap().kind else { panic!() };
        let Kind::Map(a) = &top[0].value.kind else { panic!() };
        let Kind::Map(b) = &a[0].value.kind else { panic!() };
        assert_eq!((b[1].key_mark.line, b[1].key_mark.column), (2, 14));
        let Kind::List(items) = &b[1].value.kind else { panic!() };
        assert_eq!((items[1].mark.line, items[1].mark.column), (2, 22));
    }

    #[test]
    fn a_key_given_twice_is_reported_where_it_stands_again() {
        assert_eq!(parsed("a: 1\nb: 2\na: 3\n").1, ["3:1 key `a` is given twice"]);
    }

    #[test]
    fn an_alias_that_multiplies_itself_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let list = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        let (node, problems) = parsed(&text);
        assert!(node.is_none());
        assert!(problems[0].contains("more than 100000 values"), "{problems:?}");
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let (node, problems) = parsed(&format!("a: {}1{}", "[".repeat(60), "]".repeat(60)));
        assert!(node.is_none());
        assert!(problems[0].contains("nested deeper"), "{problems:?}");
    }

    #[test]
    fn a_broken_file_names_the_place() {
        let (node, problems) = parsed("a: [1, 2\nb: 3\n");
        assert!(node.is_none());
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("2:"), "{problems:?}");
    }
}
