"""The configuration: one TOML file becomes values, or is refused whole with file and line.

Only this room imports pydantic and tomllib. The `into_...` modules turn the values into the settings of the other
rooms.
"""
