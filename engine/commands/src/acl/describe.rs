//! Users written as the rules that make them.

use super::selector::Selector;
use super::user::User;
use crate::spec::Categories;
use crate::table::{self, Command};

impl User {
    /// The user as the configuration and the users' file hold it.
    pub(crate) fn line(&self) -> Vec<u8> {
        let rules = self.rules();
        let mut words: Vec<Vec<u8>> = vec![b"user".to_vec(), self.name().to_vec()];
        words.extend(rules.flags().map(|flag| flag.as_bytes().to_vec()));
        words.extend(rules.passwords.iter().map(|digest| [b"#", &digest[..]].concat()));
        words.push(rules.root.line());
        words.extend(rules.selectors.iter().map(|selector| [b"(", &selector.line()[..], b")"].concat()));
        words.join(&b' ')
    }
}

impl Selector {
    fn line(&self) -> Vec<u8> {
        let mut words = vec![self.describe_keys()];
        if !self.all_channels {
            words.push(b"resetchannels".to_vec());
        }
        words.push(self.describe_channels());
        words.push(self.describe_commands().into_bytes());
        words.retain(|words| !words.is_empty());
        words.join(&b' ')
    }

    /// What ACL GETUSER tells of it.
    pub(crate) fn fields(&self) -> [(&'static str, Vec<u8>); 3] {
        [
            ("commands", self.describe_commands().into_bytes()),
            ("keys", self.describe_keys()),
            ("channels", self.describe_channels()),
        ]
    }

    /// The rules that allow the same commands: all or none to begin with, then the categories that come nearest, then
    /// what is still different.
    fn describe_commands(&self) -> String {
        let mut described = Selector::new(false);
        let adds = !self.later_commands;
        if !adds {
            described = Selector::everything();
        }
        let mut rules = vec![if adds { "-@all" } else { "+@all" }.to_owned()];
        // What no category covers yet.
        let mut rest = self.clone();
        let mut unused: Vec<(Categories, &str)> = Categories::ALL.to_vec();
        while let Some(best) = best_category(&rest, &unused, adds) {
            let (category, name) = unused.remove(best);
            described.set_category(category, adds);
            rest.set_category(category, !adds);
            rules.push(format!("{}@{name}", if adds { '+' } else { '-' }));
        }
        for command in table::all() {
            self.describe_difference(command, &mut described, &mut rules);
            for subcommand in command.subcommands() {
                self.describe_difference(subcommand, &mut described, &mut rules);
            }
        }
        rules.join(" ")
    }

    fn describe_difference(
        &self,
        command: &'static Command,
        described: &mut Selector,
        rules: &mut Vec<String>,
    ) {
        let allowed = self.commands.has(command);
        if allowed != described.commands.has(command) {
            rules.push(format!("{}{}", if allowed { '+' } else { '-' }, command.name));
            described.set_command(command, allowed);
        }
        let arguments = self.first_arguments.get(&command.number()).filter(|_| !allowed);
        for argument in arguments.into_iter().flatten() {
            rules.push(format!("+{}|{}", command.name, String::from_utf8_lossy(argument)));
        }
    }
}

/// The category with the fewest commands that differ, among those of which more are the same; of equals the larger.
fn best_category(rest: &Selector, unused: &[(Categories, &str)], adds: bool) -> Option<usize> {
    let mut best: Option<(usize, usize, usize)> = None;
    for (at, (category, _)) in unused.iter().enumerate() {
        let members = table::numbered().iter().filter(|command| command.categories().has(*category));
        let members: Vec<_> = members.collect();
        let allowed = members.iter().filter(|command| rest.commands.has(command)).count();
        let refused = members.len() - allowed;
        let (same, different) = if adds { (allowed, refused) } else { (refused, allowed) };
        let is_better = best.is_none_or(|(_, same_before, different_before)| {
            different < different_before || (different == different_before && same > same_before)
        });
        if same > different && is_better {
            best = Some((at, same, different));
        }
    }
    best.map(|(at, _, _)| at)
}

#[cfg(test)]
mod tests {
    use super::super::user::Rules;
    use super::*;

    fn commands(words: &str) -> String {
        let mut rules = Rules::new(false);
        for word in words.split(' ') {
            rules.apply(word.as_bytes(), false).unwrap_or_else(|error| panic!("{word}: {error}"));
        }
        rules.root.describe_commands()
    }

    #[test]
    fn each_category_is_described_by_its_name() {
        for (_, name) in Categories::ALL {
            let any =
                table::numbered().iter().any(|command| command.categories().shown().any(|n| n == *name));
            if any {
                assert_eq!(commands(&format!("-@all +@{name}")), format!("-@all +@{name}"));
                assert_eq!(commands(&format!("+@all -@{name}")), format!("+@all -@{name}"));
            }
        }
    }

    #[test]
    fn single_commands_follow_what_they_differ_from() {
        for words in ["+@all -client|kill", "-@all +object|freq", "-@all +select|0", "+@all -@string +incr"] {
            assert_eq!(commands(words), words);
        }
        assert_eq!(commands("-@all +object|freq +object"), "-@all +object");
        assert_eq!(commands("+@all -config +config|get"), "+@all -config +config|get");
    }

    #[test]
    fn rules_that_are_described_make_the_same_user() {
        let mut state = 7;
        for _ in 0..200 {
            let mut rules = Rules::new(false);
            for _ in 0..1 + crate::context::next_random(&mut state) % 8 {
                let sign = ["+", "-"][crate::context::next_random(&mut state) as usize % 2];
                let all = table::numbered();
                let command = all[crate::context::next_random(&mut state) as usize % all.len()];
                let category = Categories::ALL[crate::context::next_random(&mut state) as usize % 21].1;
                let word = match crate::context::next_random(&mut state) % 3 {
                    0 => format!("{sign}@{category}"),
                    1 => format!("{sign}{}", command.name),
                    _ => format!("{sign}@all"),
                };
                rules.apply(word.as_bytes(), false).expect("a rule");
            }
            let mut again = Rules::new(false);
            for word in rules.root.describe_commands().split(' ') {
                again.apply(word.as_bytes(), false).expect("a rule");
            }
            assert_eq!(again.root.commands, rules.root.commands, "{}", rules.root.describe_commands());
        }
    }
}
