//! What a path asks for.

use crate::model::{Label, Operation, Refusal};

/// An operation, under a label or not (RFC 7030 §3.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) operation: Operation,
    pub(super) label: Option<Label>,
    /// What is asked about: only renewal-info says that in its path.
    pub(super) id: Option<String>,
}

impl Target {
    /// Reads a path. Empty segments are passed over: a device whose configured URL ends in a slash
    /// asks for `//simplereenroll`.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        if segments.clone().eq([".well-known", "brski", "enrollstatus"]) {
            return Ok(Self { operation: Operation::EnrollStatus, label: None, id: None });
        }
        if (segments.next(), segments.next()) != (Some(".well-known"), Some("est")) {
            return Err(Refusal::PathUnknown);
        }
        let operation = |segment: Option<&str>| segment.and_then(Operation::from_segment);
        let first = segments.next();
        let target = match operation(first) {
            Some(operation) => Self { operation, label: None, id: None },
            None => {
                let label = first.ok_or(Refusal::PathUnknown)?;
                let operation = operation(segments.next()).ok_or(Refusal::PathUnknown)?;
                let label = Label::parse(label).map_err(|_| Refusal::LabelUnknown)?;
                Self { operation, label: Some(label), id: None }
            }
        };
        let id = match target.operation {
            Operation::RenewalInfo => segments.next().map(str::to_owned),
            _ => None,
        };
        match segments.next() {
            None => Ok(Self { id, ..target }),
            Some(_) => Err(Refusal::PathUnknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Label, Operation, Refusal, Target};

    #[test]
    fn e_04_paths_with_and_without_a_label() {
        let parsed = |path| Target::parse(path).unwrap();
        assert_eq!(
            parsed("/.well-known/est/cacerts"),
            Target { operation: Operation::CaCerts, label: None, id: None }
        );
        assert_eq!(
            parsed("/.well-known/est//fioconfig/simplereenroll"),
            Target {
                operation: Operation::SimpleReenroll,
                label: Some(Label::parse("fioconfig").unwrap()),
                id: None,
            }
        );
        assert_eq!(parsed("/.well-known/est/renewal-info/a.b").id.as_deref(), Some("a.b"));
    }

    #[test]
    fn other_paths_are_unknown() {
        for path in [
            "/",
            "/.well-known/est",
            "/.well-known/est/label",
            "/.well-known/est/cacerts/more",
            "/.well-known/est/a/b/cacerts",
            "/.well-known/brski/cacerts",
        ] {
            assert_eq!(Target::parse(path), Err(Refusal::PathUnknown), "{path}");
        }
    }
}
