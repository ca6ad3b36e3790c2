//! Making the tables, and bringing those of an older version up. Several who try at once take turns, and all but the
//! first find it done.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::link::{self, LONG_PATIENCE, PATIENCE, Pool, within};
use super::trouble::{NO_TABLES, Trouble};
use crate::auth::digest::PepperCheck;
use crate::auth::grant::Timestamp;
use crate::store::chain::{self, Link};
use crate::store::left;

/// The version of the tables. A newer one may hold restrictions that this program would not enforce, so it is refused.
pub(super) const FORMAT: i32 = 3;

/// Since when there are private kinds, and lists of what each commit left.
pub(super) const WITH_PRIVATE: i32 = 2;
pub(super) const WITH_LISTS: i32 = 3;

/// The oldest version whose records are where this program looks for them. So sidecars are replaced first, and then the
/// tables are brought up: nobody has to stop.
const OLDEST: i32 = 1;

/// What leads from each format to the next; from none to the first, to begin with.
const STEPS: [&str; FORMAT as usize] =
    [include_str!("schema.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];

/// "Keyward": the advisory lock of those who change the tables.
const LOCK: i64 = 0x004b_6579_7761_7264;

/// Refuses tables that this version does not know how to read.
pub(super) fn can_read(format: i32) -> Result<(), Trouble> {
    if (OLDEST..FORMAT).contains(&format) { Ok(()) } else { can_write(format) }
}

/// Refuses tables that this version does not know how to write: those of its own format it does.
pub(super) fn can_write(format: i32) -> Result<(), Trouble> {
    if format == FORMAT {
        return Ok(());
    }
    let what_to_do = if format < FORMAT {
        "a command that writes, such as `keyward scope create`, brings it up with a user that owns the tables"
    } else {
        "use the version that wrote it, or a later one"
    };
    Err(Trouble::Refused(format!(
        "it has format {format} and this version of keyward works with format {FORMAT}; {what_to_do}"
    )))
}

/// What happens where there are no tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// They are made.
    Make,
    /// Nothing: the address is wrong more often than the database is new.
    Refuse,
}

/// Makes the tables, or brings them up; does nothing where they are as they should be. Says whether they were made.
pub(super) async fn prepare(pool: &Arc<Pool>, check: PepperCheck, missing: IfMissing) -> Result<bool, Trouble> {
    let lease = pool.lease().await?;
    let before = within(PATIENCE, "looking for the tables", format(lease.client(), check)).await?;
    if before == Some(FORMAT) || (before.is_none() && missing == IfMissing::Refuse) {
        lease.give_back();
        return before.map(|_| false).ok_or_else(|| Trouble::Refused(NO_TABLES.to_owned()));
    }
    let made = within(LONG_PATIENCE, "making the tables", make(lease.client(), check)).await?;
    match within(LONG_PATIENCE, "committing", lease.client().batch_execute("commit")).await {
        Ok(()) => lease.give_back(),
        Err(lost) => {
            drop(lease);
            // A pepper that is thrown away after this would be the only one that fits.
            link::settle(lost, are_made(pool, check)).await?;
        }
    }
    Ok(made)
}

/// Whether the tables are there, after everybody else who was making them has come to an end.
async fn are_made(pool: &Arc<Pool>, check: PepperCheck) -> Result<bool, Trouble> {
    let lease = pool.lease().await?;
    take_turn(lease.client()).await?;
    Ok(format(lease.client(), check).await? == Some(FORMAT))
}

/// Begins a transaction, as the only one who makes tables.
async fn take_turn(client: &Client) -> Result<(), Trouble> {
    client.batch_execute("begin isolation level read committed; set local lock_timeout = '10s'").await?;
    client.query_typed("select pg_advisory_xact_lock($1)", &[(&LOCK, Type::INT8)]).await?;
    Ok(())
}

/// All but the commit.
async fn make(client: &Client, check: PepperCheck) -> Result<bool, Trouble> {
    take_turn(client).await?;
    let before = format(client, check).await?;
    match before {
        Some(FORMAT) => {}
        Some(format) if !(0..FORMAT).contains(&format) => can_write(format)?,
        Some(_) | None => {
            let steps = STEPS.iter().skip(usize::try_from(before.unwrap_or(0)).unwrap_or(0));
            if before.is_none() {
                make_schema(client).await?;
            }
            for step in steps {
                client.batch_execute(step).await?;
            }
            match before {
                None => begin_history(client, check).await?,
                Some(_) => client.batch_execute(&format!("update keyward.meta set format = {FORMAT}")).await?,
            }
        }
    }
    Ok(before.is_none())
}

/// The format of the tables that are there, if they are of this pepper.
async fn format(client: &Client, check: PepperCheck) -> Result<Option<i32>, Trouble> {
    // Not `to_regclass`: what that has not found once, it does not look for again in the same transaction.
    let there = "select exists (
        select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'keyward' and c.relname = 'meta')";
    if !client.query_typed_one(there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client.query_typed_opt("select format, pepper_check from keyward.meta", &[]).await?;
    let row = row.ok_or_else(Trouble::empty)?;
    match PepperCheck::from_hex(row.try_get(1)?) == Some(check) {
        true => Ok(Some(row.try_get(0)?)),
        false => Err(Trouble::WrongPepper),
    }
}

/// Whoever may use the schema need not be allowed to make one.
async fn make_schema(client: &Client) -> Result<(), Trouble> {
    let there = "select exists (select from pg_catalog.pg_namespace where nspname = 'keyward')";
    match client.query_typed_one(there, &[]).await?.try_get(0)? {
        true => Ok(()),
        false => Ok(client.batch_execute("create schema keyward").await?),
    }
}

async fn begin_history(client: &Client, check: PepperCheck) -> Result<(), Trouble> {
    let at = Timestamp::from(SystemTime::now()).to_string();
    let (entry, list) = (left::FIRST_ENTRY, left::NOTHING);
    let content = chain::list(list);
    let head = Link { previous: [0; 32], number: 0, at: &at, entry, content }.head();
    client
        .execute_typed(
            "insert into keyward.meta (one, rev, chain, floor, format, pepper_check) values (1, 0, $1, 0, $2, $3)",
            &[(&head.as_slice(), Type::BYTEA), (&FORMAT, Type::INT4), (&check.to_hex(), Type::TEXT)],
        )
        .await?;
    client
        .execute_typed(
            "insert into keyward.audit (rev, at, entry, content, chain, records)
             values (0, $1, $2::text::json, $3, $4, $5)",
            &[
                (&at, Type::TEXT),
                (&entry, Type::TEXT),
                (&content.as_slice(), Type::BYTEA),
                (&head.as_slice(), Type::BYTEA),
                (&list, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}
