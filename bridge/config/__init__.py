"""The configuration: one TOML file becomes values, or is refused whole with file and line.

`load` reads a file; `model` holds its tables and keys, with words (`words`, `keys`) that say what each key needs;
`checks` and `demands` compare values; `findings` keeps what they find.

Only this room imports pydantic and tomllib. The `into_...` modules turn the values into the settings of the other
rooms.
"""
