//! `security` of a document: what its operations demand of whoever calls.
//!
//! The route has already decided who may come in; this can only demand more. So `security: []` opens nothing, and of
//! schemes it is the scopes that count: that somebody is known was the route's to see to.

use serde_json::Value;

use super::document::{At, Document, Unusable};

/// Any one of these sets of scopes is enough; an empty list demands nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Security {
    alternatives: Vec<Vec<String>>,
}

impl Security {
    /// Reads a list of requirements. Scopes count where the scheme has them: `oauth2` and `openIdConnect`.
    ///
    /// # Errors
    /// It is malformed, or names a scheme that the document does not have: nobody could say what it demands.
    pub(super) fn read(document: &Document, at: &At, requirements: &Value) -> Result<Security, Unusable> {
        let list =
            requirements.as_array().ok_or_else(|| document.trouble(at, "this must be a list of requirements"))?;
        let mut alternatives = Vec::with_capacity(list.len());
        for (index, requirement) in list.iter().enumerate() {
            let at = at.item(index);
            let mut demanded = Vec::new();
            for (scheme, scopes) in document.object(&at, requirement)? {
                let at = at.child(scheme);
                if has_scopes(document, &at, scheme)? {
                    let list = scopes.as_array().map(|scopes| scopes.iter().map(Value::as_str));
                    let names = list.and_then(|scopes| scopes.collect::<Option<Vec<_>>>());
                    let names = names.ok_or_else(|| document.trouble(&at, "this must be a list of scopes"))?;
                    demanded.extend(names.into_iter().map(str::to_owned));
                }
            }
            demanded.sort_unstable();
            demanded.dedup();
            alternatives.push(demanded);
        }
        Ok(Security { alternatives })
    }

    /// Whether some alternatives have scopes and others none: whoever has none of those scopes may take the others.
    pub(super) fn demands_scopes_of_some(&self) -> bool {
        let (open, scoped) =
            (self.alternatives.iter().any(Vec::is_empty), self.alternatives.iter().any(|one| !one.is_empty()));
        open && scoped
    }

    /// # Errors
    /// The scopes that would be enough, of the alternative that lacks the fewest.
    pub(super) fn allows(&self, has: impl Fn(&str) -> bool) -> Result<(), &[String]> {
        let lacking = |scopes: &[String]| scopes.iter().filter(|scope| !has(scope)).count();
        match self.alternatives.iter().min_by_key(|scopes| lacking(scopes)) {
            Some(scopes) if lacking(scopes) > 0 => Err(scopes),
            Some(_) | None => Ok(()),
        }
    }
}

fn has_scopes(document: &Document, at: &At, scheme: &str) -> Result<bool, Unusable> {
    let (root_at, root) = document.root();
    let schemes = root.pointer("/components/securitySchemes").and_then(|schemes| schemes.get(scheme));
    let found = schemes.ok_or_else(|| document.trouble(at, "components.securitySchemes has no such scheme"))?;
    let place = root_at.child("components").child("securitySchemes").child(scheme);
    let (_, found) = document.follow(place, found)?;
    Ok(matches!(found.get("type").and_then(Value::as_str), Some("oauth2" | "openIdConnect")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(security: &str) -> Security {
        let text = format!(
            r#"{{"openapi": "3.1.0", "security": {security}, "components": {{"securitySchemes": {{
                "oauth": {{"type": "oauth2"}}, "oidc": {{"type": "openIdConnect"}},
                "key": {{"type": "apiKey"}}, "bearer": {{"type": "http", "scheme": "bearer"}}}}}}}}"#
        );
        let document = Document::read("a", text.as_bytes(), &[]).unwrap();
        let (at, root) = document.root();
        Security::read(&document, &at, root.get("security").unwrap()).unwrap()
    }

    fn allowed(text: &str, scopes: &[&str]) -> Result<(), Vec<String>> {
        security(text).allows(|scope| scopes.contains(&scope)).map_err(<[String]>::to_vec)
    }

    #[test]
    fn scopes_are_demanded_and_any_alternative_will_do() {
        let both = r#"[{"oauth": ["a", "b"]}, {"oidc": ["c"], "key": ["x"]}]"#;
        assert_eq!(allowed(both, &["a", "b"]), Ok(()));
        assert_eq!(allowed(both, &["c"]), Ok(()));
        assert_eq!(allowed(both, &["a"]), Err(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(allowed(r#"[{"oauth": ["a"], "oidc": ["c"]}]"#, &["a"]), Err(vec!["a".to_owned(), "c".to_owned()]));
        for open in ["[]", "[{}]", r#"[{"key": []}]"#, r#"[{"bearer": ["x"]}]"#, r#"[{"oauth": ["a"]}, {}]"#] {
            assert_eq!(allowed(open, &[]), Ok(()), "{open}");
        }
    }

    #[test]
    fn a_way_in_beside_the_one_with_scopes_is_noticed() {
        for text in [r#"[{"oauth": ["a"]}, {"key": []}]"#, r#"[{}, {"oauth": ["a"]}]"#] {
            assert!(security(text).demands_scopes_of_some(), "{text}");
        }
        for text in [r#"[{"oauth": ["a"], "key": []}]"#, r#"[{"key": []}, {"bearer": []}]"#, "[]"] {
            assert!(!security(text).demands_scopes_of_some(), "{text}");
        }
    }

    #[test]
    fn a_scheme_that_is_not_there_demands_nobody_knows_what() {
        let document = Document::read("a", br#"{"openapi": "3.1.0", "security": [{"x": []}]}"#, &[]).unwrap();
        let (at, root) = document.root();
        assert!(Security::read(&document, &at, root.get("security").unwrap()).is_err());
    }
}
