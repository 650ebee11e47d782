//! Passwords: from a file, from a pipe, or typed on a terminal that does not show them. Never from an argument, which every process sees.

use std::io::{ErrorKind, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;

use super::failure::{Failure, Outcome};

/// Held while the terminal shows nothing of what is typed.
static TERMINAL: Mutex<()> = Mutex::new(());

/// Where a password comes from.
#[derive(Debug, Args)]
pub struct Password {
    /// File that holds the password; without it, it is asked for on a terminal, or read from stdin
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Password {
    /// Was it said where the password is?
    pub fn is_given(&self) -> bool {
        self.password_file.is_some()
    }

    /// The password that somebody has.
    ///
    /// # Errors
    /// When the file cannot be read, or nobody types anything.
    pub async fn of(self, user: String) -> Outcome<String> {
        self.read(move || ask(&format!("Password of {user}: "))).await
    }

    /// A password that somebody shall have: whoever types it does so twice.
    ///
    /// # Errors
    /// As [`Password::of`], and when the two differ.
    pub async fn new_for(self, user: String) -> Outcome<String> {
        self.read(move || {
            let password = ask(&format!("New password of {user}: "))?;
            if ask("The same again: ")? == password { Ok(password) } else { Err(Failure::failed("The two passwords are not the same; nothing was done.")) }
        })
        .await
    }

    /// On a thread of its own: Ctrl-C is heard meanwhile.
    async fn read(self, typed: impl FnOnce() -> Outcome<String> + Send + 'static) -> Outcome<String> {
        let read = move || match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("The file {} cannot be read: {e}.", path.display())))?;
                Ok(line(&text))
            }
            None if std::io::stdin().is_terminal() => typed(),
            None => {
                let mut text = String::new();
                std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
                Ok(line(&text))
            }
        };
        tokio::task::spawn_blocking(read).await.map_err(|e| Failure::failed(format!("The password could not be read: {e}.")))?
    }
}

/// A text without its line end.
fn line(text: &str) -> String {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line).to_owned()
}

fn ask(prompt: &str) -> Outcome<String> {
    let _shown = TERMINAL.lock();
    rpassword::prompt_password(prompt).map_err(|error| match error.kind() {
        ErrorKind::Interrupted => Failure::Interrupted,
        ErrorKind::UnexpectedEof => Failure::failed("No password was typed; nothing was done."),
        _ => Failure::failed(format!("No password can be typed here ({error}); give it in --password-file FILE, or in a pipe.")),
    })
}

/// After Ctrl-C: waits until the terminal shows again what is typed. A shell whose terminal stays silent looks broken.
pub fn terminal_is_back() {
    // It takes a moment only, unless the signal came from elsewhere and the thread still waits for a key.
    drop(TERMINAL.try_lock_for(Duration::from_millis(200)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_line_end_is_no_part_of_a_password_and_all_else_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [("pw", "pw"), ("pw\n", "pw"), ("pw\r\n", "pw"), (" pw \n\n", " pw \n"), ("", "")] {
            std::fs::write(file.path(), text).unwrap();
            let password = || Password { password_file: Some(file.path().to_owned()) };
            assert_eq!(password().of("alice".into()).await.unwrap(), expected, "{text:?}");
            assert_eq!(password().new_for("alice".into()).await.unwrap(), expected, "{text:?}");
        }
        let missing = Password { password_file: Some("/nowhere/at/all".into()) };
        assert_eq!(missing.of("alice".into()).await.unwrap_err().exit_code(), super::super::failure::USAGE);
    }
}
