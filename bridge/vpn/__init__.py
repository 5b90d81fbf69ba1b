"""The port `vpn`: it joins the walk to the room `tunnel`, which seals and opens packets."""
