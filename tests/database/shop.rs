//! One shop, three databases: what the tests do in SQL, the same for all, and where each test gets a database of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use mezzo_client::database::sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use mezzo_client::database::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use mezzo_client::database::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use mezzo_client::database::sqlx::{self, AssertSqlSafe, MySql, Pool, Postgres, Row, SqlSafeStr, Sqlite};
use mezzo_client::database::{Database, Dialect};
use tempfile::TempDir;

use crate::server;

/// Connections of a pool: more than any test uses at one time.
pub(crate) const CONNECTIONS: u32 = 8;

/// Where one test's database is, so that further "processes" can open it too.
pub(crate) struct Place {
    /// The file of SQLite, else the folder of the server's socket.
    pub(crate) path: PathBuf,
    name: String,
    _folder: Option<TempDir>,
}

impl Place {
    /// The same database through another socket.
    pub(crate) fn through(&self, path: PathBuf) -> Self {
        Self { path, name: self.name.clone(), _folder: None }
    }

    /// As one word, for a child process.
    pub(crate) fn word(&self) -> String {
        format!("{}:{}", self.path.display(), self.name)
    }

    /// What [`Place::word`] said.
    pub(crate) fn from_word(word: &str) -> Self {
        let (path, name) = word.rsplit_once(':').expect("a path and a name");
        Self { path: path.into(), name: name.to_owned(), _folder: None }
    }
}

/// A database with a shop in it.
pub(crate) trait Shop: Dialect {
    /// Makes an empty database; `None`, and a word about it, where the server is not installed.
    fn place() -> impl Future<Output = Option<Place>> + Send;

    /// A pool of its own for the database, as another process would have it.
    fn pool(place: &Place, connections: u32) -> impl Future<Output = Pool<Self>> + Send;

    fn execute(
        connection: &mut Self::Connection,
        statement: String,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// The first column, as text.
    fn texts(pool: &Pool<Self>, query: &'static str) -> impl Future<Output = Vec<String>> + Send;
}

/// Puts an order into the open transaction.
pub(crate) async fn add_order<D: Shop>(
    connection: &mut D::Connection,
    order: &str,
) -> Result<u64, sqlx::Error> {
    D::execute(connection, format!("INSERT INTO orders VALUES ('{order}')")).await
}

/// The orders that are committed.
pub(crate) async fn orders<D: Shop>(db: &Database<D>) -> Vec<String> {
    D::texts(db.pool(), "SELECT name FROM orders ORDER BY name").await
}

/// Tables of the application and of the barrier.
pub(crate) async fn furnish<D: Shop>(db: &Database<D>) {
    db.prepare_schema().await.expect("the barrier table can be made");
    let mut connection = db.pool().acquire().await.expect("there is a connection");
    let table = "CREATE TABLE orders (name VARCHAR(64) PRIMARY KEY)".to_owned();
    D::execute(&mut connection, table).await.expect("the table can be made");
}

fn unused_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("shop_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

macro_rules! queries {
    () => {
        async fn execute(connection: &mut Self::Connection, statement: String) -> Result<u64, sqlx::Error> {
            let statement = AssertSqlSafe(statement).into_sql_str();
            Ok(sqlx::query(statement).execute(connection).await?.rows_affected())
        }

        async fn texts(pool: &Pool<Self>, query: &'static str) -> Vec<String> {
            let rows = sqlx::query(query).fetch_all(pool).await.expect("the query is right");
            rows.iter().map(|row| row.try_get(0).expect("a text")).collect()
        }
    };
}

impl Shop for Sqlite {
    async fn place() -> Option<Place> {
        let folder = TempDir::new().expect("a temporary folder");
        Some(Place { path: folder.path().join("shop.db"), name: "main".to_owned(), _folder: Some(folder) })
    }

    async fn pool(place: &Place, connections: u32) -> Pool<Self> {
        let options = SqliteConnectOptions::new().filename(&place.path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(connections).connect_with(options);
        pool.await.expect("the file can be opened")
    }

    queries!();
}

impl Shop for Postgres {
    async fn place() -> Option<Place> {
        let Some(server) = server::postgres() else {
            println!("skipped: PostgreSQL is not installed");
            return None;
        };
        let name = unused_name();
        let first = Place { path: server.folder().to_owned(), name: "postgres".to_owned(), _folder: None };
        let pool = Self::pool(&first, 1).await;
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create.into_sql_str()).execute(&pool).await.expect("a database can be made");
        Some(Place { name, ..first })
    }

    async fn pool(place: &Place, connections: u32) -> Pool<Self> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&place.path)
            .username("mezzo")
            .database(&place.name);
        let pool = PgPoolOptions::new().max_connections(connections).connect_with(options);
        pool.await.expect("the server listens")
    }

    queries!();
}

impl Shop for MySql {
    async fn place() -> Option<Place> {
        let Some(server) = server::mariadb() else {
            println!("skipped: MariaDB is not installed");
            return None;
        };
        let name = unused_name();
        let first = Place { path: server.folder().to_owned(), name: "mysql".to_owned(), _folder: None };
        let pool = Self::pool(&first, 1).await;
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create.into_sql_str()).execute(&pool).await.expect("a database can be made");
        Some(Place { name, ..first })
    }

    async fn pool(place: &Place, connections: u32) -> Pool<Self> {
        let options = MySqlConnectOptions::new()
            .socket(place.path.join("socket"))
            .username("root")
            .database(&place.name);
        let pool = MySqlPoolOptions::new().max_connections(connections).connect_with(options);
        pool.await.expect("the server listens")
    }

    queries!();
}

/// Runs each generic test with each database.
macro_rules! with_each_database {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test::<mezzo_client::database::sqlx::Sqlite>().await })+
        }
        $crate::shop::with_each_server!($($test),+);
    };
}

/// Runs each generic test with each database that is a server.
macro_rules! with_each_server {
    ($($test:ident),+ $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test::<mezzo_client::database::sqlx::Postgres>().await })+
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() { super::$test::<mezzo_client::database::sqlx::MySql>().await })+
        }
    };
}
pub(crate) use {with_each_database, with_each_server};
