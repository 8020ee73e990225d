//! A document without a route, for fuzzing, which holds some things to be true of any, and for the benches.

use http::Method;

use super::api::{Api, BodyRule};
use super::compile;
use crate::request::violation::{Violation, Violations};
use crate::validate::content::MediaType;
use crate::validate::json::{self, DEEPEST, Unreadable};
use crate::validate::memory::Held;

/// A document, compiled.
pub struct Alone {
    api: Api,
}

impl Alone {
    /// # Errors
    /// Why it cannot be used.
    pub fn compile(text: &[u8]) -> Result<Alone, String> {
        compile("", text, &[]).map(|api| Alone { api }).map_err(|unusable| unusable.to_string())
    }

    /// How many operations there are.
    pub fn operations(&self) -> usize {
        self.api.operations()
    }

    /// What is wrong with a request's body. `None`: the document has no such operation, or it takes no body of this
    /// type, or there was no memory to look into it.
    pub fn judge(
        &self,
        method: &Method,
        path: &str,
        media_type: &MediaType<'_>,
        body: &[u8],
    ) -> Option<Vec<Violation>> {
        let path = Api::decoded(path);
        let found = self.api.find(method, &path).ok()?;
        let mut violations = Violations::default();
        match self.api.body(found.id, Some(media_type)) {
            BodyRule::Free => {}
            BodyRule::Refused { .. } => return None,
            BodyRule::Json(id) => match json::read(body, DEEPEST, &mut Held::nothing()) {
                Ok(value) => self.api.judge_json(id, &value, &mut violations),
                Err(Unreadable::Wrong(violation)) => violations.push(*violation),
                Err(Unreadable::Full(_)) => return None,
            },
            BodyRule::Bytes(id) => {
                let boundary = media_type.parameter("boundary");
                self.api.judge_bytes(id, boundary.as_deref(), body, DEEPEST, &mut violations).ok()?;
            }
        }
        Some(violations.into_vec())
    }
}
