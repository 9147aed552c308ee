//! Bound parameters as the audit wants them: decoded where the type is known and common.

use ringgate_audit::event;
use ringgate_protocol::Parameters;
use ringgate_protocol::wire::Reader;

use crate::settings::ParameterDetail;

/// A Bind's parameters, walked when the audit asks for them.
pub struct Bound<'a> {
    /// As the machine handed them over.
    pub parameters: Parameters<'a>,
    /// How much of them is recorded.
    pub detail: ParameterDetail,
}

/// The longest value recorded; longer ones leave their length.
const VALUE_BYTES_MAX: usize = 8 * 1024;

impl event::Parameters for Bound<'_> {
    fn walk(&self, each: &mut dyn FnMut(event::Parameter<'_>)) {
        if self.detail == ParameterDetail::None {
            return;
        }
        let (body, types) = match self.parameters {
            Parameters::None => return,
            Parameters::Mysql(bound) if self.detail == ParameterDetail::Types => {
                return super::mysql::walk_types(&bound, each);
            }
            Parameters::Mysql(bound) => return super::mysql::walk(&bound, VALUE_BYTES_MAX, each),
            Parameters::Postgres { body, types, .. } => (body, types),
        };
        // The machine has checked the frame; a body that was cut just ends the walk early.
        let _ = walk(body, types, self.detail, each);
    }
}

fn walk(body: &[u8], types: &[u8], detail: ParameterDetail, each: &mut dyn FnMut(event::Parameter<'_>)) -> Option<()> {
    let mut reader = Reader::new(body);
    let formats = usize::from(reader.u16()?);
    let codes = reader.take(formats.checked_mul(2)?)?;
    let values = usize::from(reader.u16()?);
    for index in 0..values {
        let oid = types.get(index * 4..index * 4 + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        let len = reader.u32()?;
        if len == u32::MAX {
            each(event::Parameter::Null);
            continue;
        }
        let value = reader.take(usize::try_from(len).ok()?)?;
        if detail == ParameterDetail::Types {
            each(event::Parameter::TypeOnly(oid));
        } else if value.len() > VALUE_BYTES_MAX {
            each(event::Parameter::Cut(value.len() as u64));
        } else if is_binary(codes, index) {
            each(binary(oid, value));
        } else {
            each(event::Parameter::Text(value));
        }
    }
    Some(())
}

/// Format codes: none = all text, one = for all, else one each.
fn is_binary(codes: &[u8], index: usize) -> bool {
    let at = if codes.len() == 2 { 0 } else { index * 2 };
    codes.get(at + 1).is_some_and(|code| *code == 1)
}

/// Decodes the binary form of common types by OID (`pg_type.dat`).
fn binary(oid: u32, value: &[u8]) -> event::Parameter<'_> {
    use event::Parameter::{Binary, Bool, Float, Int, Text};
    match (oid, value) {
        (16, [byte]) => Bool(*byte != 0),
        (21, &[a, b]) => Int(i16::from_be_bytes([a, b]).into()),
        (23, &[a, b, c, d]) => Int(i32::from_be_bytes([a, b, c, d]).into()),
        (26, &[a, b, c, d]) => Int(u32::from_be_bytes([a, b, c, d]).into()),
        (20, bytes) if bytes.len() == 8 => Int(i64::from_be_bytes(bytes.try_into().unwrap_or_default())),
        (700, &[a, b, c, d]) => Float(f32::from_be_bytes([a, b, c, d]).into()),
        (701, bytes) if bytes.len() == 8 => Float(f64::from_be_bytes(bytes.try_into().unwrap_or_default())),
        (25 | 1043 | 1042 | 19 | 114, bytes) => Text(bytes),
        (_, bytes) => Binary(bytes),
    }
}

#[cfg(test)]
mod tests {
    use ringgate_audit::event::Parameters as _;

    use super::*;

    fn listed(body: &[u8], types: &[u8], detail: ParameterDetail) -> Vec<String> {
        let bound = Bound { parameters: Parameters::Postgres { body, types, cut: false }, detail };
        let mut out = Vec::new();
        bound.walk(&mut |p| out.push(format!("{p:?}")));
        out
    }

    #[test]
    fn decodes_common_binary_types_and_leaves_text_alone() {
        // Formats: binary, text; values: int4 7, "hi", NULL is third with one format for the first two only.
        let body = [0, 2, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 2, b'h', b'i'];
        let types = [0, 0, 0, 23, 0, 0, 0, 25];
        assert_eq!(listed(&body, &types, ParameterDetail::Full), ["Int(7)", "Text([104, 105])"]);
        assert_eq!(listed(&body, &types, ParameterDetail::Types), ["TypeOnly(23)", "TypeOnly(25)"]);
        assert!(listed(&body, &types, ParameterDetail::None).is_empty());
    }

    #[test]
    fn a_body_that_ends_early_gives_what_is_there() {
        let body = [0, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 9, b'x'];
        assert_eq!(listed(&body, &[], ParameterDetail::Full), ["Null"]);
    }
}
