//! What a route demands of a caller who is known: roles, any one of them, and scopes, all of them.

use super::identity::Identity;

/// `roles` and `scopes` of a route; of what it does not name it demands nothing.
pub struct Demands {
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
}

/// What a caller lacks.
#[derive(Debug, PartialEq, Eq)]
pub enum Lacking<'a> {
    Role,
    /// All that are demanded.
    Scopes(&'a [String]),
}

impl Demands {
    /// # Errors
    /// What is missing.
    pub fn met_by(&self, identity: &Identity) -> Result<(), Lacking<'_>> {
        if !self.roles.is_empty() && !self.roles.iter().any(|role| identity.has_role(role)) {
            return Err(Lacking::Role);
        }
        if !self.scopes.iter().all(|scope| identity.has_scope(scope)) {
            return Err(Lacking::Scopes(&self.scopes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::identity::Method;
    use super::*;

    #[test]
    fn any_role_and_all_scopes() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let identity = Identity::new(&Arc::from("staff"), Method::Jwt, "alice", owned(&["b", "c"]), owned(&["x", "y"]));
        let lacks = |roles: &[&str], scopes: &[&str]| {
            let demands = Demands { roles: owned(roles), scopes: owned(scopes) };
            match demands.met_by(&identity) {
                Ok(()) => "nothing".to_owned(),
                Err(Lacking::Role) => "a role".to_owned(),
                Err(Lacking::Scopes(scopes)) => scopes.join(" "),
            }
        };
        assert_eq!(lacks(&[], &[]), "nothing");
        assert_eq!(lacks(&["a", "b"], &["x", "y"]), "nothing");
        assert_eq!(lacks(&["a"], &["z"]), "a role");
        assert_eq!(lacks(&["c"], &["x", "z"]), "x z");
    }
}
