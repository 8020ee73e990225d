//! What a gate would make of a request, auth by auth, for whoever explains it: without asking anybody outside this
//! process, and without counting or remembering anything.

use std::sync::Arc;

use super::auth::{Auth, Failure, Judged, Offhand};
use super::credential::Credential;
use super::gate::{Guard, nobody_takes};
use super::identity::Identity;
use crate::request::rejection::Rejection;

/// What one auth says of the credential.
pub struct Opinion<'g> {
    pub auth: &'g Auth,
    pub said: Said,
}

pub enum Said {
    /// It does not take credentials of this kind.
    NotIts,
    /// It would be asked about a token that is no JWT; where JWTs are listed, nobody is asked about one.
    KeptFrom,
    Judged(Judged),
    /// All but the signature fits, and why that cannot be judged.
    Unproved {
        identity: Arc<Identity>,
        why: String,
    },
    /// Whom it would ask.
    Elsewhere(String),
}

/// What the auths say together.
pub enum Verdict {
    Known(Arc<Identity>),
    /// If what the opinion of this auth could not say is so.
    Perhaps {
        auth: Arc<str>,
        /// `None`: nobody knows yet.
        identity: Option<Arc<Identity>>,
    },
    Refused(Rejection),
}

impl Guard {
    /// Goes through the auths as a request does: the first that does not refuse the credential decides. Those behind it
    /// are not in the list. `keys_are_fetched`: what is not here now is not there for requests either.
    pub async fn opinions<'g>(
        &'g self,
        credential: &Credential<'_, '_>,
        keys_are_fetched: bool,
    ) -> (Vec<Opinion<'g>>, Verdict) {
        let mut opinions = Vec::new();
        let mut failure = None;
        for auth in self.auths() {
            let said = self.opinion(auth, credential, keys_are_fetched).await;
            let verdict = match &said {
                Said::NotIts | Said::KeptFrom => None,
                Said::Judged(Err(reason @ (Failure::Invalid(_) | Failure::Foreign(_)))) => {
                    failure = failure.or_else(|| Some(reason.clone()));
                    None
                }
                Said::Judged(Ok(identity)) => Some(Verdict::Known(Arc::clone(identity))),
                Said::Judged(Err(away @ Failure::Unavailable(_))) => {
                    Some(Verdict::Refused(self.refused(credential, away.clone())))
                }
                Said::Unproved { identity, .. } => {
                    Some(Verdict::Perhaps { auth: Arc::clone(&auth.name), identity: Some(Arc::clone(identity)) })
                }
                Said::Elsewhere(_) => Some(Verdict::Perhaps { auth: Arc::clone(&auth.name), identity: None }),
            };
            opinions.push(Opinion { auth, said });
            if let Some(verdict) = verdict {
                return (opinions, verdict);
            }
        }
        let failure = failure.unwrap_or_else(|| nobody_takes(credential));
        (opinions, Verdict::Refused(self.refused(credential, failure)))
    }

    async fn opinion(&self, auth: &Auth, credential: &Credential<'_, '_>, keys_are_fetched: bool) -> Said {
        let Some(asked) = auth.kind.asked(credential) else { return Said::NotIts };
        if !self.may_ask(&asked) {
            return Said::KeptFrom;
        }
        match asked.offhand().await {
            Offhand::Judged(judged) => Said::Judged(judged),
            Offhand::Unproved { why, .. } if keys_are_fetched => Said::Judged(Err(Failure::Unavailable(why))),
            Offhand::Unproved { identity, why } => Said::Unproved { identity, why },
            Offhand::Elsewhere(whom) => Said::Elsewhere(whom),
        }
    }
}
