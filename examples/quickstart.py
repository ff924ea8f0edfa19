"""An agent in a few lines: a typed function as a tool, a guard, and three ways to ask."""

import anyio

from corral import Agent, tool


@tool
def order_status(order_id: int) -> dict:
    """Get the status of an order.

    Args:
        order_id: The number of the order.
    """
    return {"order_id": order_id, "status": "shipped"}


agent = Agent(model="cria", tools=[order_status], shields="cria-guard", memory="temporary")


async def main() -> None:
    result = await agent.run("Where is order 1047?")
    print(result.text)
    async for event in agent.stream("And order 2210?", session=result.session):
        print(event.kind)


if __name__ == "__main__":
    anyio.run(main)
    print(agent.run_sync("Where is order 5?").outcome)
