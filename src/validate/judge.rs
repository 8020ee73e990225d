//! Judging one request.

use std::fmt::Write;
use std::sync::LazyLock;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::content::{self, Stated};
use super::json::{self, Unreadable};
use super::memory::{Full, Held};
use super::openapi::BodyJudge;
use super::reading::{Halt, Reading};
use super::schema::Schema;
use super::{Judging, Rule, Validation};
use crate::body::RequestBody;
use crate::config::settings::ValidateMode;
use crate::request::rejection::{Cause, Rejection};
use crate::request::violation::{Place, Violation, Violations};
use crate::upstream::journey::Journey;
use crate::worker::Worker;

/// Bytes of a body that are judged at once; more would hold up the other requests of the worker.
const AT_ONCE: usize = 32 * 1024;

/// Bytes of a body without a stated length that are waited for before a server gets the first of them, where
/// `max_body` demands that it gets none of one that is too long.
const WAITED_FOR: u64 = 8 * 1024 * 1024;

/// Large bodies that are judged at the same time: one a core, beside the workers.
static BESIDE: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)));

/// What there is to say of a request, with its body as it would go on.
pub enum Found {
    Nothing(RequestBody),
    Refused(Rejection),
    /// What `mode = "report"` would have told.
    LetThrough(String, RequestBody),
}

/// Why a request does not pass.
enum Stop {
    Refused(Rule, Rejection),
    /// Nobody's verdict: its body failed.
    Failed(Cause),
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Stop {
        match halt {
            Halt::TooLarge => Stop::Refused(Rule::MaxBody, Cause::BodyTooLarge.into()),
            Halt::Failed(cause) => Stop::Failed(cause),
            Halt::Full(full) => full.into(),
        }
    }
}

impl From<Full> for Stop {
    fn from(full: Full) -> Stop {
        match full {
            Full::One => {
                let detail = "it takes more memory than any body may to be validated: lower max_body in validate";
                Stop::Refused(Rule::Memory, Rejection::from(Cause::BodyTooLarge).with_detail(detail.to_owned()))
            }
            Full::All => Stop::Refused(Rule::Memory, Cause::ValidationOverloaded.into()),
        }
    }
}

impl Validation {
    /// Judges a request, and gives its body on, read as far as judging it needed.
    ///
    /// # Errors
    /// Why it is refused; with every violation.
    pub async fn judge(
        &self,
        judging: &Judging<'_>,
        body: RequestBody,
        worker: &Worker,
        journey: &Journey,
    ) -> Result<RequestBody, Rejection> {
        let mut reading = Reading::new(body);
        match self.examine(judging, &mut reading).await {
            Ok(()) => Ok(reading.into_body()),
            Err(Stop::Failed(cause)) => {
                if cause == Cause::BodyTooLarge {
                    self.refused_length(worker);
                }
                Err(cause.into())
            }
            Err(Stop::Refused(rule, rejection)) => {
                self.tally.refused(rule, worker.id);
                if let Some(openapi) = &self.openapi {
                    openapi.may_have_changed(rejection.cause);
                }
                let told = told(rule, &rejection);
                match self.mode {
                    ValidateMode::Enforce => Err(rejection.with_detail(told)),
                    ValidateMode::Report => {
                        journey.detail(Some(format!("let through: {told}")));
                        Ok(reading.into_body())
                    }
                }
            }
        }
    }

    /// The same for nobody: nothing is counted, and no document is asked for because of it.
    pub async fn judge_for_nobody(&self, judging: &Judging<'_>, body: RequestBody) -> Found {
        let mut reading = Reading::new(body);
        match self.examine(judging, &mut reading).await {
            Ok(()) => Found::Nothing(reading.into_body()),
            Err(Stop::Failed(cause)) => Found::Refused(cause.into()),
            Err(Stop::Refused(rule, rejection)) => {
                let told = told(rule, &rejection);
                match self.mode {
                    ValidateMode::Enforce => Found::Refused(rejection.with_detail(told)),
                    ValidateMode::Report => Found::LetThrough(told, reading.into_body()),
                }
            }
        }
    }

    async fn examine(&self, judging: &Judging<'_>, reading: &mut Reading) -> Result<(), Stop> {
        let mut operation = match &self.openapi {
            Some(openapi) => {
                Some(openapi.operation(judging).map_err(|rejection| Stop::Refused(Rule::OpenApi, rejection))?)
            }
            None => None,
        };
        if let Some((most, stated)) = self.max_body.zip(reading.stated())
            && stated > most
        {
            return Err(Halt::TooLarge.into());
        }
        let content = self.content(judging, reading).await?;
        let (mut violations, judge) = match &mut operation {
            Some(operation) => {
                let judge = operation.body(content).map_err(|rejection| Stop::Refused(Rule::OpenApi, rejection))?;
                (std::mem::take(&mut operation.violations), judge)
            }
            None => (Violations::default(), BodyJudge::Any),
        };
        let mut rule = if violations.is_empty() { Rule::Body } else { Rule::OpenApi };
        match content {
            Some(stated) => {
                if !matches!(judge, BodyJudge::Any) {
                    rule = Rule::OpenApi;
                }
                self.judge_body(stated, judge, reading, &mut violations).await?;
            }
            None => self.miss_body(judging.method, &mut violations),
        }
        if violations.is_empty() {
            return Ok(());
        }
        Err(Stop::Refused(rule, Rejection::from(Cause::InvalidRequest).with_violations(violations.into_vec())))
    }

    /// What is said of the body's type, where that is taken; `None`: there is no body.
    async fn content<'h>(&self, judging: &Judging<'h>, reading: &mut Reading) -> Result<Option<Stated<'h>>, Stop> {
        let stated = content::stated(judging.headers);
        let coded = content::is_coded(judging.headers);
        let refusal = if coded {
            Some((Rule::Coding, content::refuse_coded()))
        } else {
            self.refuse_type(&stated).map(|rejection| (Rule::ContentTypes, rejection))
        };
        // What is fine needs no look whether there is a body at all, unless somebody demands one or none.
        let knows = refusal.is_none() && self.schema.is_none() && self.openapi.is_none();
        let has_content = match reading.stated() {
            Some(length) => length > 0,
            None if knows => true,
            None => reading.has_content().await?,
        };
        match (has_content, refusal) {
            (false, _) => Ok(None),
            (true, Some((rule, rejection))) => Err(Stop::Refused(rule, rejection)),
            (true, None) => Ok(Some(stated)),
        }
    }

    fn refuse_type(&self, stated: &Stated<'_>) -> Option<Rejection> {
        let refuse = |why: &str| {
            Some(match &self.types {
                Some(types) => types.refuse(why),
                None => Rejection::from(Cause::UnsupportedMediaType).with_detail(why.to_owned()),
            })
        };
        match (stated, &self.types) {
            (Stated::Unclear, _) => refuse("its Content-Type is malformed or comes twice"),
            (Stated::Nothing, Some(_)) => refuse("it has no Content-Type"),
            (Stated::Nothing, None) => None,
            (Stated::Type(found), Some(types)) if !types.take(found) => refuse("its Content-Type is not listed"),
            (Stated::Type(found), _) if found.is_json() && !found.is_utf8() => refuse("JSON is taken in UTF-8 only"),
            // Some frameworks heed the charset of a form, and would read another one than was judged.
            (Stated::Type(found), _) if self.openapi.is_some() && found.is_form() && !found.is_utf8() => {
                refuse("forms are taken in UTF-8 only")
            }
            (Stated::Type(_), _) => None,
        }
    }

    /// Without a body there is nothing to judge; whether there should be one depends on the method.
    fn miss_body(&self, method: &Method, violations: &mut Violations) {
        let may_lack_one = matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
        if self.schema.is_some() && !may_lack_one {
            violations.push(Violation::new(Place::Body, "", "required", "is required"));
        }
    }

    async fn judge_body(
        &self,
        stated: Stated<'_>,
        judge: BodyJudge,
        reading: &mut Reading,
        violations: &mut Violations,
    ) -> Result<(), Stop> {
        let is_json = matches!(stated, Stated::Type(found) if found.is_json());
        let is_json = is_json || self.schema.is_some() || matches!(judge, BodyJudge::Json(_));
        let is_judged = is_json || !matches!(judge, BodyJudge::Any);
        let most = self.max_body.unwrap_or(u64::MAX);
        if !is_judged {
            if reading.stated().is_none() && most <= WAITED_FOR {
                reading.read_to_end(most).await?;
            }
            return Ok(());
        }
        reading.read_to_end(most).await?;
        let work = Work {
            bytes: reading.bytes(),
            is_json,
            max_depth: self.max_depth,
            schema: self.schema.clone(),
            judge,
            violations: std::mem::take(violations),
        };
        *violations = work.done().await?;
        Ok(())
    }
}

/// What is to be found out about a body; can be done on another thread.
struct Work {
    bytes: Bytes,
    is_json: bool,
    max_depth: usize,
    schema: Option<std::sync::Arc<Schema>>,
    judge: BodyJudge,
    violations: Violations,
}

impl Work {
    async fn done(self) -> Result<Violations, Stop> {
        if self.bytes.len() <= AT_ONCE {
            return self.run().map_err(Stop::from);
        }
        // Nobody closes it.
        let permit = BESIDE.acquire().await.map_err(|_| Stop::Failed(Cause::Internal))?;
        let work = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            self.run()
        });
        work.await.map_err(|_| Stop::Failed(Cause::Internal))?.map_err(Stop::from)
    }

    fn run(self) -> Result<Violations, Full> {
        let Work { bytes, is_json, max_depth, schema, judge, mut violations } = self;
        if !is_json {
            if let BodyJudge::Bytes(judge) = judge {
                judge.judge(&bytes, &mut violations)?;
            }
            return Ok(violations);
        }
        // What the value takes; dropped after it.
        let mut held = Held::nothing();
        let value: Value = match json::read(&bytes, max_depth, &mut held) {
            Ok(value) => value,
            Err(Unreadable::Wrong(violation)) => {
                violations.push(*violation);
                return Ok(violations);
            }
            Err(Unreadable::Full(full)) => return Err(full),
        };
        if let Some(schema) = schema {
            schema.judge(&value, Place::Body, "", &mut violations);
        }
        match judge {
            BodyJudge::Any => {}
            BodyJudge::Json(judge) => judge.judge(&value, &mut violations),
            BodyJudge::Bytes(judge) => judge.judge(&bytes, &mut violations)?,
        }
        drop(value);
        Ok(violations)
    }
}

/// For the log: the first violations, nothing of values.
fn told(rule: Rule, rejection: &Rejection) -> String {
    const SHOWN: usize = 5;
    let mut text = rule.as_str().to_owned();
    if let Some(detail) = rejection.detail() {
        // Writing to a string does not fail.
        let _ = write!(text, ": {detail}");
    }
    let violations = rejection.violations();
    for (index, violation) in violations.iter().take(SHOWN).enumerate() {
        let mark = if index == 0 { ':' } else { ',' };
        let _ = write!(text, "{mark} {}{} {}", violation.place.as_str(), violation.pointer, violation.rule);
    }
    if violations.len() > SHOWN {
        let _ = write!(text, " and {} more", violations.len().saturating_sub(SHOWN));
    }
    text
}
