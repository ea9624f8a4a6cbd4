# Started as versitygw is, with --port :PORT posix FOLDER: a folder is a bucket there, too.
set -eu
exec /opt/rclone/bin/rclone serve s3 --addr "$2" --auth-key "$ROOT_ACCESS_KEY,$ROOT_SECRET_KEY" "$4"
